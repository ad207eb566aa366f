"""The demo: all its steps run, and everything it writes lies below demo/."""

import json
import sys

from benchmarks import demo


def test_demo_writes_below_its_folder_alone(tmp_path, run_here, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        demo, "run", lambda script, options: run_here([script, *options.split()], tmp_path)
    )
    # Processes of their own take seconds to start, which a few images don't repay.
    monkeypatch.setattr(demo, "FRAME", demo.FRAME.replace("--num_workers 2", "--num_workers 0"))
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
    for name in (*demo.SHEETS, "matching/matches.png", "overview.jpg"):
        assert (tmp_path / "demo/images" / name).is_file()
