from blocks.formulas import Cost
from spaces.metrics import CAPPED, COSTS, METRICS, OBJECTIVES


def test_which_metrics_there_are_and_which_way_is_better():
    assert {name: metric.direction for name, metric in METRICS.items()} == {
        "accuracy": "max",
        "curve_area": "max",
        "epochs_to_target": "min",
        "seconds_to_target": "min",
        "params": "min",
        "macs": "min",
        "flops": "min",
        "memory": "min",
        "latency_ratio": "min",
        "latency_ms": "min",
        "throughput": "max",
    }


def test_costs_are_known_before_training():
    assert COSTS == ("params", "macs", "flops")
    assert (*COSTS, "memory", "latency_ratio") == CAPPED
    assert not METRICS["accuracy"].is_cost


def test_times_of_different_moments_are_no_objectives():
    costs = ("params", "macs", "flops", "memory", "latency_ratio")
    assert ("accuracy", *costs, "curve_area") == OBJECTIVES
    for name in ("latency_ms", "throughput", "epochs_to_target", "seconds_to_target"):
        assert METRICS[name].instead in OBJECTIVES


def test_a_metric_goes_by_its_name_and_says_what_it_means():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.better == {"max": "higher", "min": "lower"}[metric.direction]
        assert len(metric.meaning) > 20


def test_every_cost_is_a_field_of_what_is_counted():
    assert set(COSTS) < set(Cost().to_json())
