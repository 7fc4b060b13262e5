import pytest

from blocks.plain import Settled, canonical_text, content_digest, text_digest


def test_content_digest_is_the_sha256_of_canonical_json():
    # echo -n '{"a":1,"b":[true,null]}' | sha256sum
    digest = "x1-1cc69c7fa23616ca2ec3ee70d24390a6"
    assert content_digest("x1", {"b": [True, None], "a": 1}) == digest
    with pytest.raises(ValueError, match="JSON compliant"):
        content_digest("x1", {"a": float("nan")})


def test_settled_data_is_the_same_data_with_its_texts():
    data = Settled({"b": [True, None], "a": 1})
    assert data == {"b": [True, None], "a": 1}
    assert data.text == '{"b": [true, null], "a": 1}'
    assert data.canonical == canonical_text(data) == '{"a":1,"b":[true,null]}'
    assert text_digest("x1", data.canonical) == content_digest("x1", dict(data))
