"""Other combinations than the ladder's: a search for the Pareto front of size, latency and metric, by Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compiler.errors import UserError
from compiler.ladder.steps import Step
from compiler.ladder.trials import Trial

if TYPE_CHECKING:
    from compiler.ladder.judge import Judge

#: Forms of weights to combine with pruning; those in groups need iOS 18.
FORMS = ("half", "int8", "palette6", "palette4")
FORMS_18 = (*FORMS, "int4", "palette4-group16", "palette3")
#: Shares of channels to cut out.
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
SEED = 8


def explore(judge: Judge, known: Sequence[Trial], count: int) -> Iterator[tuple[Trial, bool]]:
    """Tries ``count`` combinations of a weight form and a share of channels that were not tried yet.

    Optuna's tree-structured Parzen estimator (Ozaki et al. 2020) chooses them from what is known, by size, estimated
    latency and drop at once. The same history gives the same choices, so a killed search goes on where it was.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("exploring needs Optuna, which is not installed", "pip install 'planish[explore]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    forms = FORMS_18 if judge.ladder.target.ios >= 18 else FORMS
    space: dict[str, Any] = {
        "form": optuna.distributions.CategoricalDistribution(forms),
        "prune": optuna.distributions.CategoricalDistribution(SHARES),
    }
    study = optuna.create_study(directions=["minimize"] * 3, sampler=optuna.samplers.TPESampler(seed=SEED))
    done = set()
    for trial in known:
        point = {"form": trial.options.get("quantize", "half"), "prune": trial.options.get("prune", 0.0)}
        if point["form"] in forms and "distil" not in trial.options and not trial.measured.refused:
            done.add(tuple(point.values()))
            study.add_trial(optuna.create_trial(params=point, distributions=space, values=_values(trial)))
    left = min(count, len(forms) * len(SHARES) - len(done))
    while left:
        asked = study.ask(space)
        form, share = asked.params["form"], asked.params["prune"]
        if (form, share) in done:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        done.add((form, share))
        left -= 1
        options = {**({"quantize": form} if form != "half" else {}), **({"prune": share} if share else {})}
        name = form + (f" pruned {100 * share:.0f} %" if share else "")
        trial, again = judge.tried(Step(name, options.get("quantize"), share or None), options)
        if trial.measured.refused:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, _values(trial))
        yield trial, again


def _values(trial: Trial) -> list[float]:
    return [float(trial.measured.bytes), trial.measured.latency_ms, trial.drop]
