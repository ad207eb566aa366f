"""Small runs of the real scripts, each as its own process group, and what they leave."""

from tests.scripts.running import assert_same_tensors, logged, run_inside, start_process, tensors_of

FRAME = "--image_size 72 --image_crop 4 --model resnet18 --num_workers 1 --print_freq 1"


def start(script, faces, cwd, options, **how):
    """Start a script in a folder, with its two outputs in one pipe unless ``how`` says more."""
    given = [*FRAME.split(), "--data_folder", faces, "--model_path", "runs", *options.split()]
    return start_process(script, *given, cwd=cwd, **how)


def inside(script, faces, cwd, *options, start=run_inside):
    """Run a script in this process, as a subprocess with one thread would."""
    given = [*FRAME.split(), "--data_folder", faces, "--model_path", "runs", *options]
    return start(script, *given, "--num_workers", "0", cwd=cwd)


def assert_same_end(one, other, epochs):
    """Compare the last checkpoints of two runs' folders to the bit, and their records."""
    assert_same_tensors(*(tensors_of(run / "current.pth") for run in (one, other)))
    assert [epoch["epoch"] for epoch in logged(one)] == list(range(1, epochs + 1))
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
