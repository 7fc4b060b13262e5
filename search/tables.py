"""The tables of studies.db. They are the truth; Optuna's own tables beside them are a mirror.

Every name begins with ``search_``, so that none can clash with Optuna's. Later versions extend
these tables and never replace them. Times are UTC in ISO 8601.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

schema = Table("search_schema", metadata, Column("version", Integer, nullable=False))

spaces = Table(
    "search_spaces",
    metadata,
    Column("digest", String(48), primary_key=True),
    Column("source", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("content", JSON, nullable=False),
)

# identity: what may not change while a study goes on (data, epochs, seed).
# settings: what may (trials, seeds, sampler, pruner). sampler_state: Optuna's study attributes.
studies = Table(
    "search_studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("space_digest", ForeignKey("search_spaces.digest"), nullable=False),
    Column("objectives", JSON, nullable=False),
    Column("constraints", JSON, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("sampler_state", JSON, nullable=False),
    Column("owner", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("note", Text, nullable=False),
    Column("created", String(32), nullable=False),
    Column("changed", String(32), nullable=False),
)

candidates = Table(
    "search_candidates",
    metadata,
    Column("digest", String(48), primary_key=True),
    Column("architecture_digest", String(48), nullable=False, index=True),
    Column("architecture", JSON, nullable=False),
    Column("training", JSON, nullable=False),
    Column("data", JSON, nullable=False),
    Column("baseline", Boolean, nullable=False),
    Column("params", BigInteger, nullable=False),
    Column("trainable_params", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("flops", BigInteger, nullable=False),
)

# One row per process that ran a study. seconds: until it was last heard of. devices: that one
# attempt of its takes (GPUs, or processes on a processor); workers that share a GPU share its time.
runs = Table(
    "search_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("search_studies.id"), nullable=False, index=True),
    Column("owner", Text, nullable=False),
    Column("started", String(32), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("devices", Float, nullable=False),
)

# Every suggestion of the sampler, also those that became no trial: the sampler is replayed from
# these rows. verdict: accepted, repeated, rejected (over a cap) or impossible (fits no site).
proposals = Table(
    "search_proposals",
    metadata,
    Column("study_id", ForeignKey("search_studies.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("parameters", JSON, nullable=False),
    Column("distributions", JSON, nullable=False),
    Column("system_attributes", JSON, nullable=False),
    Column("candidate_digest", ForeignKey("search_candidates.digest")),
    Column("label", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("objective_values", JSON),
)

trials = Table(
    "search_trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("search_studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("candidate_digest", ForeignKey("search_candidates.digest"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("distributions", JSON, nullable=False),
    Column("proposal", Integer),
    Column("baseline", Boolean, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("origin_trial_id", ForeignKey("search_trials.id")),
    Column("seconds", Float, nullable=False),
    Column("created", String(32), nullable=False),
    Column("finished", String(32)),
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "candidate_digest", "seed"),
    Index("search_trials_by_candidate", "candidate_digest", "seed", "state"),
)

# One row per start of a trial. ending: a final state, or lost / interrupted. cause: begins with a
# name of search.failures where it has not succeeded.
attempts = Table(
    "search_attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("search_trials.id"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("started", String(32), nullable=False),
    Column("finished", String(32)),
    Column("ending", String(16)),
    Column("cause", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("provenance_digest", ForeignKey("search_provenance.digest")),
    UniqueConstraint("trial_id", "number"),
)

curves = Table(
    "search_curves",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("train_loss", Float),
    Column("train_accuracy", Float),
    Column("loss", Float),
    Column("accuracy", Float),
    Column("learning_rate", Float),
    Column("seconds", Float),
)

# Further numbers of an epoch: images_per_second, peak_memory_bytes.
epochs = Table(
    "search_epochs",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("metric", String(48), primary_key=True),
    Column("value", Float, nullable=False),
)

# Which images of a split were classified right: one bit each, in the split's stored order, as
# numpy.packbits packs them (the first image is the highest bit of the first byte).
answers = Table(
    "search_answers",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("split", String(16), primary_key=True),
    Column("images", Integer, nullable=False),
    Column("right", LargeBinary, nullable=False),
)

# predicted: the images of the split that were taken for this class.
classes = Table(
    "search_classes",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("split", String(16), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("images", Integer, nullable=False),
    Column("right", Integer, nullable=False),
    Column("predicted", Integer, nullable=False),
)

measurements = Table(
    "search_measurements",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("split", String(16), primary_key=True),
    Column("metric", String(48), primary_key=True),
    Column("value", Float, nullable=False),
)

# The ordinary architecture that a training's learnt choices have come to (frequency: nas).
findings = Table(
    "search_findings",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("architecture", JSON, nullable=False),
)

# Which image of a data set is in which part: one byte an image (0 train, 1 validation, 2 test), in
# the order of the files, compressed by zlib. checksum: of the images and labels.
splits = Table(
    "search_splits",
    metadata,
    Column("split_digest", String(48), primary_key=True),
    Column("data", String(64), nullable=False),
    Column("checksum", String(64), nullable=False),
    Column("sizes", JSON, nullable=False),
    Column("parts", LargeBinary, nullable=False),
)

artefacts = Table(
    "search_artefacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("search_trials.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

provenance = Table(
    "search_provenance",
    metadata,
    Column("digest", String(48), primary_key=True),
    Column("content", JSON, nullable=False),
)

# What attention does in a trained network, by kind: gradcam, gates, frequency, maps. content: the
# numbers and what cannot be seen; images: small arrays as the bytes of a compressed npz file.
insights = Table(
    "search_insights",
    metadata,
    Column("trial_id", ForeignKey("search_trials.id"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("content", JSON, nullable=False),
    Column("images", LargeBinary, nullable=False),
    Column("created", String(32), nullable=False),
)

# Who has what of a study on PostgreSQL, where several parents run it. kind: parent (it runs the
# study), trial (it evaluates the trial of this number) or mirror. expires: by the database's clock.
leases = Table(
    "search_leases",
    metadata,
    Column("study_id", ForeignKey("search_studies.id"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False),
)
