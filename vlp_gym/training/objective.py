"""What a preference model is trained to do: VLP's three losses and ours, as one module."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlp_gym.models.aim import SCALE, Aim
from vlp_gym.models.vlp import VLP, Video, Words
from vlp_gym.training.batches import MatchBatch, PreferenceBatch, check_least
from vlp_gym.training.losses import ilp_loss, itp_loss, ivp_loss, match_loss


@dataclass(frozen=True)
class LossConfig:
    """How much each loss weighs; the order within a task (ITP) weighs 1."""

    ilp: float = 0.1
    """VLP table 13, lambda 1."""
    ivp: float = 0.5
    """VLP table 13, lambda 2: of each of two terms, one for either clip of a pair. With a match only the batches count
    that are drawn as the view says, since the match learns of no others."""
    strangers: int = 2
    """Other tasks of which two clips are scored under each sentence: the negatives of IVP and ILP."""
    undo: float = 0.0
    """Of the order that a task's clips have under the sentence of the training task that undoes it (ours). It teaches
    verbs: without, a sentence says what is to be moved, and not which way. It costs some order, so it is off until
    something can be read: the README's recipe goes on with it from a model that was trained without. With neither
    `TrainConfig.undoing` nor an `aim` it is learned by heart."""
    aim: float = 0.5
    """Of saying from a sentence alone which way its task's object is to be moved (ours): it parts "open" from "close"
    long before the preferences do."""
    match: float = 0.5
    """Of telling tasks apart by what they show (ours)."""
    match_margin: float = 2.0
    """Added to the logit of a match in IVP and ILP, in the place of `VLPConfig.match_margin`, and not sharpened: what
    learns has to have a slope everywhere."""
    centre: float = 0.1
    """Of the mean progress of a batch, squared (ours): it stays at 0, from where `VLPConfig.match_worth` counts. Only
    differences of progress mean anything else."""
    state: float = 1.0
    """Of finding gripper and object on the frames, which teaches the tokens where things are (ours)."""

    def __post_init__(self) -> None:
        """Refuse a weight under which a loss would be made larger, and no strangers at all."""
        for name in ("ilp", "ivp", "undo", "aim", "match", "centre", "state"):
            check_least(f"loss.{name}", getattr(self, name), 0.0)
        check_least("loss.strangers", self.strangers, 1)


class Objective(nn.Module):
    """VLP's total loss (section 3.3) plus ours; a module of its own, so that several GPUs can share a step.

    Args:
        model: the preference model.
        config: weights of the losses.
    """

    def __init__(self, model: VLP, config: LossConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        own = Aim(model.config.width, model.config.n_frames) if model.aim is None else None
        self.own_aim = own  # thrown away after training

    def forward(
        self, batch: PreferenceBatch, match: MatchBatch | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and what it is made of."""
        model, config = self.model, self.config
        device = model.place.device
        n_tasks, n_clips = batch.clips.shape[:2]
        video, words = self._read(batch)

        def read(clip: Tensor, sentence: Tensor) -> tuple[tuple[Video, Words], Tensor]:
            pair = video[clip], words[sentence]
            return pair, model.progress(*pair)

        def shown(pair: tuple[Video, Words], progress: Tensor) -> Tensor:
            """Return scores as IVP sees them: with a match, IVP leaves progress alone."""
            return self._join(progress if model.match is None else progress.detach(), *pair)

        task = torch.arange(n_tasks, device=device)
        index = torch.arange(n_tasks * n_clips, device=device).view(n_tasks, n_clips)
        mine, progress = read(index.flatten(), task.repeat_interleave(n_clips))
        # Two windows of each of the next few tasks; tasks come in random order.
        shift = 1 + torch.arange(config.strangers, device=device)
        stranger = index[(task[:, None] + shift) % n_tasks][..., :2]  # [tasks, strangers, 2]
        theirs, foreign = read(stranger.flatten(), task.repeat_interleave(2 * config.strangers))
        other = self._join(foreign, *theirs).view(n_tasks * config.strangers, 2)

        # Clips of one task order themselves by progress alone: a doubtful match would be made up for by it.
        own = model.worth(progress).view(n_tasks, n_clips)
        itp = itp_loss(own, batch.label.to(device), batch.weight.to(device))
        ivp = ivp_loss(
            shown(mine, progress).view(n_tasks, n_clips), shown(theirs, foreign).view(n_tasks, -1)
        )
        ilp = ilp_loss(other)
        state = batch.state.to(device).flatten(0, 1)
        where = F.smooth_l1_loss(10 * self.aim.where(video.tokens), 10 * state, beta=1.0)
        total = itp + config.ilp * ilp + config.state * where
        if batch.still or model.match is None:
            total = (
                total + 2 * config.ivp * ivp
            )  # a term for either clip of a pair, here their mean
        if model.match is not None:
            total = total + config.centre * progress.mean().square()
        info = {"itp_loss": itp, "ilp_loss": ilp, "ivp_loss": ivp, "state_loss": where}
        if config.undo:
            info["undo_loss"] = self._undo_loss(video, index, batch)
            total = total + config.undo * info["undo_loss"]
        if match is not None:
            info["match_loss"] = self._match_loss(match)
            info["aim_loss"] = self._aim_loss(match)
            total = total + config.match * info["match_loss"] + config.aim * info["aim_loss"]
        return total, {"loss": total, **info}

    def _join(self, progress: Tensor, video: Video, words: Words) -> Tensor:
        """Return scores as `VLP.join` does, with a gentler slope to learn by."""
        model = self.model
        if model.match is None:
            return model.worth(progress)
        logit = model.match(video.shown, words.meant) + self.config.match_margin
        return torch.sigmoid(logit) * model.worth(progress)

    def _read(self, batch: PreferenceBatch) -> tuple[Video, Words]:
        """Return clips and sentences as the model reads them; the match learns from still frames alone.

        What a scene is of is told from the colours and places of its picture. A match that has to tell it under every
        look goes by less, and takes a scene that it does not know for another.
        """
        model = self.model
        if model.match is not None:
            model.match.train(batch.still and self.training)
        video = model.read_video(model.see(batch.clips.to(model.place.device).flatten(0, 1)))
        words = model.read_words(self._tokens(batch.sentences))
        if model.match is None or batch.still:
            return video, words
        model.match.train(self.training)
        return replace(video, shown=video.shown.detach()), replace(
            words, meant=words.meant.detach()
        )

    @property
    def aim(self) -> Aim:
        """What says where things are and which way they are wanted: the model's, or one of its own to learn by."""
        aim = self.model.aim if self.own_aim is None else self.own_aim
        assert aim is not None
        return aim

    def _tokens(self, sentences: list[str]) -> Tensor:
        tokens = torch.stack([self.model.encoders.tokenize(each) for each in sentences])
        return tokens.to(self.model.place.device)

    def _undo_loss(self, video: Video, index: Tensor, batch: PreferenceBatch) -> Tensor:
        """Return the loss of the tasks whose undoing is trained, too, under the sentences that ask for it.

        Of progress alone, as ITP is.
        """
        device = index.device
        asked = [(i, sentence) for i, sentence in enumerate(batch.undoing) if sentence is not None]
        if not asked:
            return torch.zeros((), device=device)
        chosen = torch.tensor([i for i, _ in asked])
        words = self.model.read_words(self._tokens([sentence for _, sentence in asked]))
        clip = index[chosen.to(device)]
        same = torch.arange(len(asked), device=device).repeat_interleave(clip.shape[1])
        score = self.model.worth(self.model.progress(video[clip.flatten()], words[same]))
        label, weight = batch.undone_label[chosen], batch.undone_weight[chosen]
        return itp_loss(score.view(clip.shape), label.to(device), weight.to(device))

    def _aim_loss(self, batch: MatchBatch) -> Tensor:
        words = self.model.read_words(self._tokens(batch.sentences))
        way = batch.way.to(words.tokens.device)
        return F.smooth_l1_loss(self.aim.wanted(words.mean), SCALE * way, beta=0.1)

    def _match_loss(self, batch: MatchBatch) -> Tensor:
        tokens = self._tokens(batch.sentences)
        logit = self.model.match_logit(self.model.see(batch.clips.to(tokens.device)), tokens)
        n_sentences, n_clips = logit.shape
        task_of_clip = torch.arange(n_clips, device=tokens.device) // (n_clips // n_sentences)
        own = task_of_clip == torch.arange(n_sentences, device=tokens.device)[:, None]
        return match_loss(logit, own)
