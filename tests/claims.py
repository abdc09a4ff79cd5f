"""Small hypotheses and evidence for tests of the ledger, verdicts and report."""

from prosect.core.records import (
    Comparison,
    Component,
    Description,
    Evidence,
    Executable,
    Family,
    Hypothesis,
    Measured,
    Rival,
    Scope,
    TestPlan,
)

SCOPE = Scope(model="m" * 64, data="d" * 64, dtype="float32")


def plan(name="predicts", fold="validate.0", level=1, margin=0.1, draws=999):
    return TestPlan(
        name=name,
        kind="predict-activations",
        level=level,
        metric="correlation of predicted with measured activation",
        rivals=(Rival(name="random-direction", role="control", margin=margin),),
        unit="cluster",
        units_min=40,
        firing_min=20,
        draws=draws,
        fold=fold,
        seed=1,
    )


def hypothesis(index=0, round=1, parent=None, side="cause", tests=None, explainer="rules@1"):
    return Hypothesis(
        round=round,
        component=Component(decomposition="topk@resid_post.1", index=index, reads=("resid_post.1",)),
        side=side,
        description=Description(
            words=f"fires on the token {index}",
            cause=Executable(kind="token-rule", parameters={"tokens": [index]}),
        ),
        explainer=explainer,
        draw="random",
        tests=tests or (plan(fold=f"validate.{round - 1}"),),
        scope=SCOPE,
        parent=parent,
        explored={"correlation": 0.7},
    )


def family(round, *hypotheses, alpha=0.025):
    return Family(
        round=round,
        alpha=alpha,
        hypotheses=tuple(h.id for h in hypotheses),
        tests=sum(len(h.tests) for h in hypotheses),
    )


def evidence(h, test="predicts", estimate=0.8, difference=0.5, half=0.1, p=0.001, enough=True, margin=0.1):
    measured = Measured(estimate=estimate, low=estimate - half, high=estimate + half, n=60, method="test")
    gap = Measured(estimate=difference, low=difference - half, high=difference + half, n=60, method="test")
    rival = Measured(estimate=estimate - difference, low=None, high=None, n=60)
    return Evidence(
        hypothesis=h.id,
        test=test,
        measured=measured,
        comparisons=(
            Comparison(
                rival="random-direction",
                role="control",
                decides=True,
                measured=rival,
                difference=gap,
                margin=margin,
                p=p,
            ),
        ),
        p=p,
        units=60,
        firing=40,
        enough=enough,
    )
