"""What attention does in a trained network: pure functions on (network, images, labels).

``gradcam``, ``gates``, ``frequency`` and ``attention_maps`` each answer one question of the
literature; ``examine`` puts them to one network, ``store`` keeps what they say. May import
``blocks``, ``spaces`` and ``search``; ``store`` and ``choosing`` need no torch. docs/explain.md
says what every number means.
"""
