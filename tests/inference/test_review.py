# SPDX-License-Identifier: Apache-2.0
from ignite.engine import Engine

from bundle.pyraseg.inference.review import ReviewList


class Uncertainty:
    of_case = 0.0


def test_the_most_doubtful_comes_first_and_a_second_run_starts_anew(tmp_path):
    uncertainty, uncertainties = Uncertainty(), {"a": 0.2, "b/ct": 0.5, "c": 0.0}

    def step(engine: Engine, name: str) -> list:
        uncertainty.of_case = uncertainties[name]
        engine.state.batch = [{"name": name}]
        return [{}]

    engine = Engine(step)
    ReviewList(tmp_path / "out", uncertainty=uncertainty).attach(engine)
    engine.run(["a", "b/ct", "c"])
    path = tmp_path / "out" / "review.csv"
    assert path.read_text().split() == ["case,uncertainty", "b/ct,0.50000000", "a,0.20000000", "c,0.00000000"]
    engine.run(["a"])
    assert path.read_text().split() == ["case,uncertainty", "a,0.20000000"]
