"""The ridge readout: heatmaps and a prior of shape in closed form [spec 12]."""

from torch import nn

from engine.features.images import EncodedImages
from engine.readouts.published import OPTIMIZATION
from engine.readouts.readout import Readout
from engine.readouts.ridge_fit import assign_folds, fit_ridge
from models.exported import ExportedRidge
from models.ridge import RidgeReadout
from utils.log import RunLog, Stopwatch


class Ridge(Readout):
    """`RidgeReadout`, of which one epoch is all."""

    kind = entry = "ridge"
    keys = ("opt", "epoch", "ridge")
    counted = ("bias", 1)
    ignored = (*OPTIMIZATION, "repeat", "num_per_epoch")
    module: RidgeReadout

    @staticmethod
    def build(
        channels: int, landmarks: int, side: int, shape: tuple[int, int] | None
    ) -> RidgeReadout:
        """Return a readout that isn't fitted; see `Readout.build`."""
        return RidgeReadout(channels, landmarks, side, shape)

    def exportable(self) -> nn.Module:
        """Return the readout with its prior's constants worked out."""
        return ExportedRidge(self.module)

    def fit(
        self, train: EncodedImages, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, object]:
        """Fit, unless a checkpoint was found; evaluate and save. See `Readout.fit`."""
        points, visible = train.annotations()
        shape = self.score_mean_shape(points, visible, held_out, log)
        watch, result = Stopwatch(), dict[str, object](epochs=1, mean_shape=shape)
        if not self.done:
            self.check_shown(visible)
            fold_of = assign_folds(train, len(points), self.groups)
            result["ridge"] = fit_ridge(self.module, train, fold_of, log)._asdict()
            log.line(f"fitted to {len(points)} images in {watch.seconds():.1f} s")
        self.done = 1
        scores = self.evaluate(held_out)
        if held_out:
            log.line(self.task.in_words(scores))
        weights = {name: value.cpu() for name, value in self.module.state_dict().items()}
        content = self.checkpoint(self.done, ridge=weights)
        self.write(content, content, keep=False)
        return {**result, "last": scores}
