"""What a sweep as a whole says, and what its jobs say, are checked together only where they meet."""

from pathlib import Path

from faults.one_process import run_all

RIGHT = (
    "-m dry_run=true optimizer=sgd,adam reg=kl_sparsity model.activation=sigmoid",
    "-m dry_run=true prune=asha prune.min_epochs=30 trainer.max_epochs=40 seed=0,1",
    "-m dry_run=true trainer.max_epochs=null trainer.max_steps=50 optimizer.lr=0.1,0.2",
)
WRONG = {
    "-m dry_run=true prune=asha prune.min_epochs=30 trainer.max_epochs=20 seed=0,1": "prune.min_epochs=30 ends no run before",
    "-m dry_run=true reg=kl_sparsity optimizer=sgd,adam": "model.activation=sigmoid",
}


def test_settings_of_the_jobs_are_not_taken_for_those_of_the_sweep(tmp_path: Path) -> None:
    left = run_all({words: words.split() for words in (*RIGHT, *WRONG)}, tmp_path)
    assert {words: left[words].errors for words in RIGHT} == dict.fromkeys(RIGHT, "")
    for words, mistake in WRONG.items():
        assert left[words].code == 2
        assert mistake in left[words].errors
