"""Small real trainings of many kinds, recorded by Tracer: healthy ones, and ones with a fault planted in them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import tracer

Training = Callable[[int], None]
F = functional


def begin(name: str, seed: int) -> None:
    """Begin a run, and make what follows the same each time."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tracer.init(
        project="trainings", run_name=name, quiet=True, checkpoint_interval=5, track_git=False, track_environment=False,
        config={"seed": seed},
    )  # fmt: skip


def advance(optimizer: torch.optim.Optimizer, loss: Tensor, clip: list[Tensor] | None = None, **more: object) -> None:
    """Do one step and record it."""
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(clip, 1.0)
    optimizer.step()
    tracer.log({"loss": loss, **more})
    tracer.step()


def regression(seed: int, steps: int = 400) -> None:
    """An MLP learns a smooth function."""
    begin(f"regression-{seed}", seed)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tracer.watch(model, optimizer)
    truth = torch.randn(8)
    for step in range(steps):
        x = torch.randn(32, 8)
        loss = F.mse_loss(model(x).squeeze(1), torch.sin(x @ truth) + 0.1 * torch.randn(32))
        more = {}
        if step % 20 == 19:
            with torch.no_grad():
                x = torch.randn(256, 8)
                more["val/loss"] = F.mse_loss(model(x).squeeze(1), torch.sin(x @ truth))
        advance(optimizer, loss, **more)
    tracer.finish()


def images(seed: int, steps: int = 250) -> None:
    """A CNN with BatchNorm and dropout tells made-up images apart."""
    begin(f"images-{seed}", seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    tracer.watch(model, optimizer)
    patterns = torch.randn(4, 1, 12, 12)
    for _ in range(steps):
        y = torch.randint(0, 4, (32,))
        x = patterns[y] + 1.5 * torch.randn(32, 1, 12, 12)
        output = model(x)
        advance(optimizer, F.cross_entropy(output, y), accuracy=(output.argmax(1) == y).float().mean())
    tracer.finish()


class Block(nn.Module):
    """A block of a small transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to what came before, then think."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        y = self.first(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False, is_causal=True)[0]
        return x + self.mlp(self.second(x))


TEXT = "the quick brown fox jumps over the lazy dog while the slow red hen sleeps under a warm grey stone. " * 20


class Characters(nn.Module):
    """A character model."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(letters, width), nn.Embedding(24, width)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes next."""
        return self.head(self.norm(self.blocks(self.embedding(x) + self.places(torch.arange(x.shape[1])))))


def transformer(seed: int, steps: int = 300) -> None:
    """A transformer reads letters, with warm-up, cosine and clipping."""
    begin(f"transformer-{seed}", seed)
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(one) for one in TEXT])
    model = Characters(len(letters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 40, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    tracer.watch(model, optimizer)
    for _ in range(steps):
        at = torch.randint(0, len(data) - 25, (16,))
        x = torch.stack([data[i : i + 24] for i in at])
        y = torch.stack([data[i + 1 : i + 25] for i in at])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        advance(optimizer, loss, list(model.parameters()), lr=schedule.get_last_lr()[0])
        schedule.step()
    tracer.finish()


def recurrent(seed: int, steps: int = 250) -> None:
    """A GRU adds up marked numbers."""
    begin(f"recurrent-{seed}", seed)
    model, head = nn.GRU(2, 32, batch_first=True), nn.Linear(32, 1)
    whole = nn.ModuleDict({"gru": model, "head": head})
    optimizer = torch.optim.Adam(whole.parameters(), lr=2e-3)
    tracer.watch(whole, optimizer)
    for _ in range(steps):
        x = torch.rand(32, 12, 2)
        x[:, :, 1] = (x[:, :, 1] < 0.2).float()
        y = (x[:, :, 0] * x[:, :, 1]).sum(1, keepdim=True)
        advance(optimizer, F.mse_loss(head(model(x)[0][:, -1]), y), list(whole.parameters()))
    tracer.finish()


def autoencoder(seed: int, steps: int = 400) -> None:
    """An autoencoder with tanh and sigmoid squeezes patterns."""
    begin(f"autoencoder-{seed}", seed)
    model = nn.Sequential(
        nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 4), nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 40), nn.Sigmoid()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    tracer.watch(model, optimizer)
    basis = torch.randn(4, 40)
    for _ in range(steps):
        x = torch.sigmoid(torch.randn(32, 4) @ basis)
        advance(optimizer, F.binary_cross_entropy(model(x), x))
    tracer.finish()


def adversarial(seed: int, steps: int = 400) -> None:
    """A generator and a discriminator learn from each other."""
    begin(f"adversarial-{seed}", seed)
    generator = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    discriminator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    optimizers = [torch.optim.Adam(one.parameters(), lr=1e-3, betas=(0.5, 0.9)) for one in (generator, discriminator)]
    tracer.watch(nn.ModuleDict({"generator": generator, "discriminator": discriminator}), optimizers[0])
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    judge = F.binary_cross_entropy_with_logits
    for _ in range(steps):
        angle = 2 * math.pi * torch.rand(64)
        real = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(64, 2)
        fake = generator(torch.randn(64, 4))
        optimizers[1].zero_grad()
        loss = judge(discriminator(real), ones) + judge(discriminator(fake.detach()), zeros)
        loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        other = judge(discriminator(fake), ones)
        other.backward()
        optimizers[0].step()
        tracer.log({"d_loss": loss, "g_loss": other})
        tracer.step()
    tracer.finish()


def logistic(seed: int, steps: int = 500) -> None:
    """A logistic regression, quickly done."""
    begin(f"logistic-{seed}", seed)
    model = nn.Linear(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    tracer.watch(model, optimizer)
    truth = torch.randn(20)
    for _ in range(steps):
        x = torch.randn(64, 20)
        y = (x @ truth + 0.5 * torch.randn(64) > 0).float()
        advance(optimizer, F.binary_cross_entropy_with_logits(model(x).squeeze(1), y))
    tracer.finish()


def bandit(seed: int, steps: int = 500) -> None:
    """A policy gradient on a contextual bandit: a loss that is noise, and gradients that are sometimes none."""
    begin(f"bandit-{seed}", seed)
    policy = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    tracer.watch(policy, optimizer)
    truth, baseline = torch.randn(6, 4), 0.0
    for _ in range(steps):
        x = torch.randn(16, 6)
        choice = torch.distributions.Categorical(logits=policy(x))
        action = choice.sample()
        reward = ((x @ truth).argmax(1) == action).float()
        loss = -(choice.log_prob(action) * (reward - baseline)).mean() - 0.01 * choice.entropy().mean()
        baseline = 0.95 * baseline + 0.05 * float(reward.mean())
        advance(optimizer, loss, reward=reward.mean())
    tracer.finish()


def frozen(seed: int, steps: int = 300) -> None:
    """Fine-tuning: only the head learns, the rest is frozen."""
    begin(f"frozen-{seed}", seed)
    body = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()).requires_grad_(requires_grad=False)
    model = nn.Sequential(body, nn.Linear(32, 3))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=5e-3)
    tracer.watch(model, optimizer)
    truth = torch.randn(10, 3)
    for _ in range(steps):
        x = torch.randn(32, 10)
        advance(optimizer, F.cross_entropy(model(x), (x @ truth).argmax(1)))
    tracer.finish()


def embedding(seed: int, steps: int = 400) -> None:
    """Factors of users and items with sparse gradients: most rows of a step are untouched."""
    begin(f"embedding-{seed}", seed)
    users, items = nn.Embedding(500, 8, sparse=True), nn.Embedding(300, 8, sparse=True)
    whole = nn.ModuleDict({"user": users, "item": items})
    optimizer = torch.optim.SparseAdam(list(whole.parameters()), lr=0.01)
    tracer.watch(whole, optimizer)
    likes, liked = torch.randn(500, 4), torch.randn(300, 4)
    for _ in range(steps):
        user, item = torch.randint(0, 500, (64,)), torch.randint(0, 300, (64,))
        rating = (likes[user] * liked[item]).sum(1).tanh()
        advance(optimizer, F.mse_loss((users(user) * items(item)).sum(1), rating))
    tracer.finish()


def tiny_batches(seed: int, steps: int = 600) -> None:
    """Batches of two rows with outliers: a loss with a heavy tail, and a learning rate that falls in stairs."""
    begin(f"tiny-batches-{seed}", seed)
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 200, 0.1)
    tracer.watch(model, optimizer)
    for _ in range(steps):
        x = torch.randn(2, 5)
        y = x.abs().sum(1, keepdim=True) + torch.distributions.StudentT(4.0).sample((2, 1))
        advance(optimizer, F.mse_loss(model(x), y), lr=schedule.get_last_lr()[0])
        schedule.step()
    tracer.finish()


CLEAN: tuple[Training, ...] = (
    regression, images, transformer, recurrent, autoencoder, adversarial, logistic, bandit, frozen, embedding,
    tiny_batches,
)  # fmt: skip


# With a fault planted at a known step.


def begin_faulty(name: str, seed: int = 0) -> None:
    """Begin a run that records every step, whatever that costs."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tracer.init(
        project="faulty", run_name=name, quiet=True, checkpoint_interval=1, track_git=False, track_environment=False,
        max_overhead=1.0,
    )  # fmt: skip


def network(inside: type[nn.Module] = nn.ReLU, depth: int = 2, width: int = 32) -> nn.Sequential:
    """Return an MLP."""
    parts: list[nn.Module] = [nn.Linear(8, width), inside()]
    for _ in range(depth - 1):
        parts += [nn.Linear(width, width), inside()]
    return nn.Sequential(*parts, nn.Linear(width, 1))


def batch(rows: int = 32) -> tuple[Tensor, Tensor]:
    """Return a batch of a regression."""
    x = torch.randn(rows, 8)
    return x, torch.sin(x.sum(1, keepdim=True)) + 0.05 * torch.randn(rows, 1)


def rate_leap(steps: int = 200, at: int = 120) -> None:
    """The learning rate rises a thousandfold for three steps."""
    begin_faulty("rate-leap")
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer.watch(model, optimizer)
    for step in range(steps):
        rate = 10.0 if at <= step < at + 3 else 0.01
        optimizer.param_groups[0]["lr"] = rate
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y), lr=rate)
    tracer.finish()


def bad_batch(steps: int = 200, at: int = 120) -> None:
    """One batch has inputs that are a hundred times too large."""
    begin_faulty("bad-batch")
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    tracer.watch(model, optimizer)
    for step in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x * 100 if step == at else x), y))
    tracer.finish()


def not_a_number(steps: int = 200, at: int = 120) -> None:
    """The logarithm of a negative number enters the loss."""
    begin_faulty("not-a-number")
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tracer.watch(model, optimizer)
    for step in range(steps):
        x, y = batch()
        loss = F.mse_loss(model(x), y)
        advance(optimizer, loss + torch.log(-loss) if step == at else loss)
    tracer.finish()


def sigmoid_stack(steps: int = 100) -> None:
    """Ten layers of sigmoids: nothing arrives at the first ones."""
    begin_faulty("sigmoid-stack")
    model = network(nn.Sigmoid, depth=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer.watch(model, optimizer)
    for _ in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y))
    tracer.finish()


def dead_units(steps: int = 150, at: int = 100) -> None:
    """A bias is set so low that no unit of the second layer fires."""
    begin_faulty("dead-units")
    model = network(depth=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracer.watch(model, optimizer, activations=True)
    for step in range(steps):
        if step == at:
            with torch.no_grad():
                model[2].bias.fill_(-1000.0)
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y))
    tracer.finish()


def exploding_recurrence(steps: int = 150, at: int = 100) -> None:
    """The recurrent weights of an RNN are set to grow what they hold."""
    begin_faulty("exploding-recurrence")
    model = nn.RNN(2, 16, nonlinearity="relu", batch_first=True)
    head = nn.Linear(16, 1)
    whole = nn.ModuleDict({"rnn": model, "head": head})
    optimizer = torch.optim.SGD(whole.parameters(), lr=1e-6)
    tracer.watch(whole, optimizer)
    for step in range(steps):
        if step == at:
            with torch.no_grad():
                model.weight_hh_l0.copy_(2.0 * torch.eye(16))
        x = torch.rand(16, 12, 2)
        advance(optimizer, F.mse_loss(head(model(x)[0][:, -1]), x.sum((1, 2))[:, None]))
    tracer.finish()


def still_layer(steps: int = 120) -> None:
    """The first layer was given a learning rate of zero."""
    begin_faulty("still-layer")
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2:].parameters(), "lr": 0.01}]
    optimizer = torch.optim.SGD(groups)
    tracer.watch(model, optimizer)
    for _ in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y))
    tracer.finish()


def memorised(steps: int = 600) -> None:
    """Eight rows are learnt by heart, and what was not learnt gets worse."""
    begin_faulty("memorised")
    model = network(width=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, other_x = torch.randn(64, 8), torch.randn(256, 8)
    y, other_y = (one[:, :2].sum(1, keepdim=True) + torch.randn(len(one), 1) for one in (x, other_x))
    for step in range(steps):
        with torch.no_grad():
            more = {"val/loss": F.mse_loss(model(other_x), other_y)} if step % 5 == 0 else {}
        advance(optimizer, F.mse_loss(model(x), y), **more)
    tracer.finish()


def too_fast(steps: int = 400, at: int = 200) -> None:
    """From some step on the learning rate is far too high, and the loss climbs."""
    begin_faulty("too-fast")
    weights = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weights], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 if step < at else 1.01
        loss = ((weights - 3 + 0.05 * torch.randn(4)) ** 2).sum()
        advance(optimizer, loss, lr=optimizer.param_groups[0]["lr"])
    tracer.finish()


def nothing_learnt(steps: int = 300) -> None:
    """The learning rate is zero."""
    begin_faulty("nothing-learnt")
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y), lr=0.0)
    tracer.finish()


def saturated(steps: int = 60) -> None:
    """Inputs in thousands go into tanh."""
    begin_faulty("saturated")
    model = network(nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    tracer.watch(model, optimizer, activations=True)
    for _ in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(1000 * x), y))
    tracer.finish()


def equal_weights(steps: int = 60) -> None:
    """A layer begins with all weights the same."""
    begin_faulty("equal-weights")
    model = network()
    nn.init.constant_(model[2].weight, 0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    tracer.watch(model, optimizer)
    for _ in range(steps):
        x, y = batch()
        advance(optimizer, F.mse_loss(model(x), y))
    tracer.finish()


FAULTY: tuple[Callable[[], None], ...] = (
    rate_leap, bad_batch, not_a_number, sigmoid_stack, dead_units, exploding_recurrence, still_layer, memorised,
    too_fast, nothing_learnt, saturated, equal_weights,
)  # fmt: skip
