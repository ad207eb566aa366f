"""The demo: all its steps run, and everything it writes lies below demo/."""

import importlib
import json
import shlex
import sys

from benchmarks import demo


def test_demo_writes_below_its_folder_alone(tmp_path, monkeypatch, capsys):
    def run(script, options):
        """Run a script in this process, which spares it the seconds of importing torch."""
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        monkeypatch.setattr(sys, "argv", [script, *shlex.split(options)])
        module.main()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", run)
    # Processes of their own take seconds to start, which a few images don't repay.
    monkeypatch.setattr(demo, "FRAME", demo.FRAME.replace("--num_workers 2", "--num_workers 0"))
    monkeypatch.setattr("datasets.synthetic.available_cores", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--quick"])
    demo.main()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (tmp_path / "demo" / "runs_tensorboard" / "dense").is_dir()
    printed = capsys.readouterr().out
    assert "4 faces" in printed
    rows = {line[:22].strip(): line[22:].split() for line in printed.splitlines()}
    for label, name in (("untrained encoder", "random"), ("pre-trained encoder", "pretrained")):
        results = [
            json.loads((tmp_path / f"demo/runs/{name}_{count}/result.json").read_text())
            for count in demo.QUICK.annotations
        ]
        assert [result["images"]["training"] for result in results] == [2, 3, 6]
        errors = [result["last"]["Test"]["InterOcularError"] for result in results]
        assert rows[label] == [f"{error:.1f}" for error in errors]
        shapes = [result["mean_shape"]["InterOcularError"] for result in results]
        assert rows["mean shape"] == [f"{error:.1f}" for error in shapes]
    images = tmp_path / "demo" / "images"
    for name in ("random", "pretrained"):
        for sheet in ("contact_sheet.png", "pca_sheet.png"):
            assert (images / name / sheet).is_file()
    assert (images / "matching" / "matches.png").is_file()
    assert (images / "overview.jpg").is_file()
