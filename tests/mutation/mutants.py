# ruff: noqa: E501 (the text of a mutant stays whole)
"""Deliberate mistakes in the papers' formulas, each with the tests that must notice it.

A mutant replaces one piece of text in one file. `run.py` applies them one at a time and says which
survive; `test_mutants.py` checks that every piece of text still stands where it is looked for.
"""

from dataclasses import dataclass

NETWORKS = "tests/models/test_references.py"
RECIPES = "tests/training/recipes/test_references.py"
SELF_TRAINING = "tests/training/recipes/test_self_training.py"
MOSS = "tests/models/test_moss.py"
RAIN = "tests/rain/test_painting.py"
FORMULAS = "tests/losses/test_formulas.py"
VGG = "tests/losses/test_vgg.py"
PRESETS = "tests/training/configs/test_presets.py"
REGIONS = "tests/metrics/test_region_errors.py"
MUON = "tests/training/test_muon.py"


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        name: Paper and what is wrong.
        file: Below `derain_cli`.
        old: Text that stands there exactly once.
        new: What replaces it.
        tests: Test files, or single tests, one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(file: str, test: str, *changes: tuple[str, str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(name, file, old, new, (test,)) for name, old, new in changes)


MUTANTS: tuple[Mutant, ...] = (
    *_of(
        "models/moss.py",
        NETWORKS,
        ("moss: input stays in 0..1", "self.head(padded * 2 - 1)", "self.head(padded)"),
        ("moss: input in 0..2", "self.head(padded * 2 - 1)", "self.head(padded * 2)"),
        ("moss: slope 0.2", "NEGATIVE_SLOPE = 0.02", "NEGATIVE_SLOPE = 0.2"),
        ("moss: s + g", "shallow - rain if", "shallow + rain if"),
        ("moss: g - s", "shallow - rain if", "rain - shallow if"),
        (
            "moss: output of tanh not moved to 0..1",
            "torch.tanh(self.to_image(background).to(rainy.dtype)) + 1) / 2",
            "torch.tanh(self.to_image(background).to(rainy.dtype)) + 1) / 1",
        ),
        ("moss: max instead of average pooling", "nn.AvgPool2d(2)", "nn.MaxPool2d(2)"),
        (
            "moss: nearest up-sampling",
            'mode="bilinear", align_corners=False)] if double',
            'mode="nearest")] if double',
        ),
        ("moss: shortcut dropped", "changed + self.shortcut(x)", "changed"),
        (
            "moss: softmax of cosines multiplied",
            "scale=1 / self.temperature",
            "scale=self.temperature",
        ),
        (
            "moss: queries not normalised",
            "F.normalize(queries, dim=1)[None, None]",
            "queries[None, None]",
        ),
        (
            "moss: normalised items are read",
            "            items[None, None],\n",
            "            F.normalize(items, dim=1)[None, None],\n",
        ),
        ("moss: kappa 3", "blocks: int = 4", "blocks: int = 3"),
        ("moss: 256 items", "memory_items: int = 512", "memory_items: int = 256"),
        ("moss: tau 0.99", "memory_decay: float = 0.999", "memory_decay: float = 0.99"),
    ),
    *_of(
        "models/moss.py",
        MOSS,
        (
            "moss: tau and 1 - tau swapped",
            "torch.lerp(sums / counts.clamp(min=1), self.items, self.decay)",
            "torch.lerp(self.items, sums / counts.clamp(min=1), self.decay)",
        ),
        ("moss: sums instead of means", "sums / counts.clamp(min=1)", "sums"),
        ("moss: unchosen items decay", "torch.where(counts > 0, moved, self.items)", "moved"),
        (
            "moss: memory read before it is updated",
            "if update and self.training:\n            self.update(queries)",
            "if update and self.training and False:\n            self.update(queries)",
        ),
        ("moss: memory updated in eval mode", "if update and self.training", "if update"),
        ("moss: each process keeps its own memory", "dist.all_reduce(totals)", "None"),
        (
            "moss: item chosen by product, not cosine",
            "queries @ F.normalize(self.items, dim=1).T",
            "queries @ self.items.T",
        ),
    ),
    *_of(
        "training/recipes/self_training.py",
        RECIPES,
        ("moss: three backgrounds", "int(rng.integers(4))", "int(rng.integers(3))"),
        ("moss: synthetic rain alone", "int(rng.integers(2))", "int(rng.integers(1))"),
        (
            "moss: real rain with the wrong sign",
            'batch["other_real"] - other_pseudo',
            'other_pseudo - batch["other_real"]',
        ),
        (
            "moss: synthetic rain with the wrong sign",
            'batch["other_rainy"] - batch["other_clean"]',
            'batch["other_clean"] - batch["other_rainy"]',
        ),
        (
            "moss: label of a rainy image is itself",
            'labels = torch.stack((batch["clean"],',
            'labels = torch.stack((batch["rainy"],',
        ),
        (
            "moss: label of a photo is itself",
            'labels = torch.stack((batch["clean"], batch["clean"], pseudo, pseudo))',
            'labels = torch.stack((batch["clean"], batch["clean"], batch["real"], pseudo))',
        ),
        ("moss: rain subtracted", "+ alpha[..., None] * rains", "- alpha[..., None] * rains"),
        ("moss: alpha ignored", "+ alpha[..., None] * rains", "+ rains"),
        ("moss: no clamp", "rains).clamp(0, 1)", "rains)"),
        (
            "moss: warm-up one step short",
            "step >= self.warmup_epochs",
            "step + 1 >= self.warmup_epochs",
        ),
        (
            "moss: no warm-up",
            "warm = step >= self.warmup_epochs * self.steps_per_epoch",
            "warm = True",
        ),
        (
            "moss: student labels the photos",
            "photos = self._target.network(photos)",
            "photos = self.model(photos)",
        ),
        ("moss: target does not follow", "self._target.follow(self.model, step)", "pass"),
        (
            "moss: unions as often",
            "kinds = (labelled / 2, labelled / 2, real / 2, real / 2)",
            "kinds = (0.25, 0.25, 0.25, 0.25)",
        ),
        ("moss: rest holds the labelled pairs", "if pair not in kept]", "if pair in kept]"),
    ),
    *_of(
        "training/recipes/self_training.py",
        SELF_TRAINING,
        (
            "moss: TV of labelled images",
            "total_variation(derained_noisy)",
            "total_variation(derained)",
        ),
        (
            "moss: noisy images against the clean ones",
            "l1(derained_noisy, label)",
            "l1(derained_noisy, clean)",
        ),
    ),
    *_of(
        "training/configs/finetune.py",
        RECIPES,
        ("moss: alpha from 0", "(0.5, 1.1)", "(0.0, 1.1)"),
        ("moss: alpha to 1", "(0.5, 1.1)", "(0.5, 1.0)"),
        (
            "moss: lambda_1 is 1",
            "        10.0,\n",
            "        1.0,\n",
        ),
        (
            "moss: lambda_3 is 0.01",
            "        0.001,\n",
            "        0.01,\n",
        ),
    ),
    *_of(
        "models/menet.py",
        NETWORKS,
        (
            "menet: quarter skip after its ReLU",
            "self.from_quarter(x + quarter)",
            "self.from_quarter(x + F.relu(quarter))",
        ),
        (
            "menet: half-size skip after its ReLU",
            "self.from_half(x + half)",
            "self.from_half(x + F.relu(half))",
        ),
        ("menet: no half-size skip", "self.from_half(x + half)", "self.from_half(x)"),
        ("menet: no quarter-size skip", "self.from_quarter(x + quarter)", "self.from_quarter(x)"),
        ("menet: ReLU after a block's sum", "return x + changed", "return F.relu(x + changed)"),
        (
            "menet: sigmoid before the mean",
            "context_mean = self.context(x).mean(dim=(2, 3), keepdim=True)",
            "context_mean = self.context(x).sigmoid().mean(dim=(2, 3), keepdim=True).logit()",
        ),
        (
            "menet: attention without the input",
            "return x + x * torch.sigmoid(context_mean)",
            "return x * torch.sigmoid(context_mean)",
        ),
        ("menet: residual subtracted", "padded + F.pixel_shuffle", "padded - F.pixel_shuffle"),
        ("menet: epsilon of torch", "NORM_EPSILON = 1e-3", "NORM_EPSILON = 1e-5"),
        (
            "menet: blocks before attention",
            "features = self.attention(features, context_mean)\n        x = self.blocks(features)",
            "features = self.attention(self.blocks(features))\n        x = features",
        ),
    ),
    *_of(
        "models/rdmc.py",
        NETWORKS,
        (
            "rdmc: rainy first",
            "torch.cat((derained, padded), dim=1)",
            "torch.cat((padded, derained), dim=1)",
        ),
        (
            "rdmc: stages subtract from the last result",
            "derained = padded - self.rain_of_stage",
            "derained = derained - self.rain_of_stage",
        ),
        (
            "rdmc: first result returned",
            "return self.all_stages(rainy)[-1]",
            "return self.all_stages(rainy)[0]",
        ),
        (
            "rdmc: average pooling between levels",
            "paths = [_max_pool(path, 2) for path in paths]",
            "paths = [F.avg_pool2d(path, 2) for path in paths]",
        ),
        (
            "rdmc: skip before what is below",
            "parts = [*_upsampled(below), *features[level_of(layer)]]",
            "parts = [*features[level_of(layer)], *_upsampled(below)]",
        ),
        (
            "rdmc: skip-down by average",
            "self.conv(_max_pool(x, 2**-self.steps))",
            "self.conv(F.avg_pool2d(x, 2**-self.steps))",
        ),
        (
            "rdmc: last stage's batch norm for all",
            "self.stages[min(stage, len(self.stages) - 1)](x)\n        return normed",
            "self.stages[-1](x)\n        return normed",
        ),
        (
            "rdmc: nearest up-sampling",
            'scale_factor=factor, mode="bilinear", align_corners=False)',
            'scale_factor=factor, mode="nearest")',
        ),
        ("rdmc: corners aligned", "align_corners=False)", "align_corners=True)"),
        (
            "rdmc: dilation of path 1 everywhere",
            "padding=dilation, dilation=dilation, bias=bias",
            "padding=1, dilation=1, bias=bias",
        ),
    ),
    *_of(
        "losses/formulas.py",
        RECIPES,
        (
            "rdmc: rho reversed",
            "CONTRAST_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)",
            "CONTRAST_WEIGHTS = (1.0, 1 / 4, 1 / 8, 1 / 16, 1 / 32)",
        ),
        (
            "rdmc: ratio upside down",
            "rho * _distance(anchor, positive) / _distance(anchor, negative).clamp_min(floor)",
            "rho * _distance(anchor, negative) / _distance(anchor, positive).clamp_min(floor)",
        ),
        ("hcn: SSIM added", "return -torch.stack(terms).sum()", "return torch.stack(terms).sum()"),
        ("hcn: alpha ignored", "terms = [alpha * ssim(x, clean)", "terms = [ssim(x, clean)"),
        (
            "hcn: beta reversed",
            "pairs = zip(weights, derained, levels, strict=True)",
            "pairs = zip(weights[::-1], derained, levels, strict=True)",
        ),
        ("ssim: C1 and C2 swapped", "C1, C2 = 0.01**2, 0.03**2", "C2, C1 = 0.01**2, 0.03**2"),
        ("ssim: window of 9", "WINDOW, SIGMA = 11, 1.5", "WINDOW, SIGMA = 9, 1.5"),
        (
            "menet: one Sobel kernel twice",
            "torch.stack((across, across.T))",
            "torch.stack((across, across))",
        ),
        ("menet: Gram not divided by M", "/ patches.shape[-1]", "/ 1"),
        ("menet: perceptual loss unscaled", "return VGG_LEVELS**2 * torch", "return torch"),
        (
            "moss: TV down alone",
            "return down.abs().mean() + right.abs().mean()",
            "return down.abs().mean()",
        ),
    ),
    *_of(
        "losses/formulas.py",
        FORMULAS,
        ("hcn: KL the other way round", "F.kl_div(log_p, log_q,", "F.kl_div(log_q, log_p,"),
        ("rdmc: gamma_1 is 1", "mse_weight: float = 0.1", "mse_weight: float = 1.0"),
    ),
    *_of(
        "training/objectives.py",
        RECIPES,
        (
            "rdmc: clean and rainy swapped in the prior",
            "losses.contrastive_prior(derained, clean, rainy,",
            "losses.contrastive_prior(derained, rainy, clean,",
        ),
        (
            "rdmc: losses against the rainy image",
            "return TERMS[name](derained, clean)",
            "return TERMS[name](derained, rainy)",
        ),
    ),
    *_of(
        "losses/weighting.py",
        RECIPES,
        ("menet: weight is the share", "others / total)", "sizes / total)"),
    ),
    *_of(
        "losses/vgg.py",
        VGG,
        (
            "rdmc: stack positions instead of convolutions",
            "CONTRAST_LAYERS = (1, 6, 11, 20, 29)",
            "CONTRAST_LAYERS = (1, 3, 5, 9, 13)",
        ),
        ("menet: conv3_4 after its ReLU", "PERCEPTUAL_LAYER = 16", "PERCEPTUAL_LAYER = 17"),
        ("vgg: images not normalised", "x = (image - self.mean) / self.deviation", "x = image"),
    ),
    *_of(
        "models/hcn.py",
        NETWORKS,
        ("hcn: sine and cosine swapped", "angle.sin(), angle.cos())", "angle.cos(), angle.sin())"),
        ("hcn: base 1000", "10000.0 ** (-2", "1000.0 ** (-2"),
        (
            "hcn: rows and columns of the code swapped",
            "return torch.cat((rows, columns))",
            "return torch.cat((columns, rows))",
        ),
        ("hcn: code before the features", "_side_by_side((x, code))", "_side_by_side((code, x))"),
        (
            "hcn: second pass over the pooled features",
            "scales = _mine_along(scales[::-1], self.down2up, self.down2up_convs)[::-1]\n            tops.append(scales[0])",
            "tops.append(_mine_along(scales[::-1], self.down2up, self.down2up_convs)[-1])",
        ),
        (
            "hcn: fusion without the first pass",
            'tops = [x]\n        if self.mining != "up2down":\n            scales = _mine_along(scales[::-1], self.down2up, self.down2up_convs)[::-1]\n            tops.append(scales[0])',
            'tops = [x]\n        if self.mining != "up2down":\n            scales = _mine_along(scales[::-1], self.down2up, self.down2up_convs)[::-1]\n            tops.append(x)',
        ),
        (
            "hcn: keys of any length",
            "F.normalize(key, dim=-1, eps=KEY_FLOOR).to(query)",
            "key.to(query)",
        ),
        ("hcn: softmax scale 1", "SOFTMAX_SCALE = 10.0", "SOFTMAX_SCALE = 1.0"),
        ("hcn: overlaps not divided", "OVERLAP_DIVISOR = 4", "OVERLAP_DIVISOR = 1"),
        ("hcn: slope 0.01", "SLOPE = 0.2\n", "SLOPE = 0.01\n"),
        (
            "hcn: decoder adds the encoder's blocks in their order",
            "x, _ = stack(x, encoder_blocks[::-1])",
            "x, _ = stack(x, encoder_blocks)",
        ),
        (
            "hcn: exit of T from N22",
            "rainy - _cut(self.to_rain_top(n31), rainy)",
            "rainy - _cut(self.to_rain_top(n22), rainy)",
        ),
        (
            "hcn: N13 reads N12 first",
            "self.n13(self.into_13(n22, n12))",
            "self.n13(self.into_13(n12, n22))",
        ),
        (
            "hcn: rain added",
            "derained = rainy - _cut(self.to_rain_bottom(n13), rainy)",
            "derained = rainy + _cut(self.to_rain_bottom(n13), rainy)",
        ),
    ),
    *_of(
        "training/recipes/online_update.py",
        RECIPES,
        (
            "hcn: rain of the same photo",
            "other = (photo + 1 + int(rng.integers(max(len(self.photos) - 1, 1)))) % len(self.photos)",
            "other = photo",
        ),
        (
            "hcn: other rain with the wrong sign",
            "self.photos.crop(other, elsewhere) - self.truth.crop(other, elsewhere)",
            "self.truth.crop(other, elsewhere) - self.photos.crop(other, elsewhere)",
        ),
        (
            "hcn: pseudo ground truth of another place",
            "self.photos.crop(photo, window), self.truth.crop(photo, window)",
            "self.photos.crop(photo, window), self.truth.crop(photo, elsewhere)",
        ),
        ("hcn: always the next photo", "int(rng.integers(max(len(self.photos) - 1, 1)))", "0"),
    ),
    *_of(
        "rain/painting.py",
        RAIN,
        ("gu: quantity of small", "SMALL = RainRange((200, 300)", "SMALL = RainRange((100, 300)"),
        ("gu: length of small", "(5,), (30, 31), (-5, 5))", "(5,), (30, 41), (-5, 5))"),
        ("gu: direction of small", "(30, 31), (-5, 5))", "(30, 31), (-15, 15))"),
        ("gu: width of small", "(200, 300), (5,),", "(200, 300), (3,),"),
        ("gu: length of medium", "(20, 40), (-30, 30)", "(20, 60), (-30, 30)"),
        ("gu: direction of medium", "(20, 40), (-30, 30)", "(20, 40), (-45, 45)"),
        ("gu: widths of medium", "(5, 7, 9), (20, 40)", "(3, 5, 7), (20, 40)"),
        ("gu: length of large", "(5, 60), (-70, 70)", "(15, 60), (-70, 70)"),
        ("gu: direction of large", "(5, 60), (-70, 70)", "(5, 60), (-60, 60)"),
        ("gu: widths of large", "(1, 3, 5, 7, 9), (5, 60)", "(3, 5, 7, 9), (5, 60)"),
        (
            "gu: ten times the drops",
            "share = 0.01 * quantity / 256",
            "share = 0.1 * quantity / 256",
        ),
        ("gu: direction not drawn", "rng.uniform(*knobs.direction)", "knobs.direction[0] * 0.0"),
    ),
    *_of(
        "rain/layers.py",
        RAIN,
        ("gu: layers of Table 1 varied", "if kind in TABLE_1:", "if kind in ():"),
    ),
    *_of(
        "metrics/region_errors.py",
        REGIONS,
        (
            "gu: E_R against the clean image",
            "e_r=_rms(derained, rainy, mask)",
            "e_r=_rms(derained, clean, mask)",
        ),
        (
            "gu: E_B in the rain",
            "e_b=_rms(derained, clean, ~mask)",
            "e_b=_rms(derained, clean, mask)",
        ),
    ),
    *_of(
        "training/muon.py",
        MUON,
        ("muon: momentum 0.9", "MOMENTUM = 0.95", "MOMENTUM = 0.9"),
        ("muon: no Nesterov", "return weight.grad.lerp(mean, MOMENTUM)", "return mean"),
        ("muon: one iteration", "ITERATIONS = 5", "ITERATIONS = 1"),
        ("muon: steps twice Adam's", "ADAMS_SIZE = 0.2", "ADAMS_SIZE = 0.4"),
        ("muon: size by the narrow side", "max(x.shape[1:]) ** 0.5", "min(x.shape[1:]) ** 0.5"),
        ("muon: b of the quintic", "3.4445, -4.7750, 2.0315", "3.4445, -3.7750, 2.0315"),
        ("muon: c of the quintic", "3.4445, -4.7750, 2.0315", "3.4445, -4.7750, 1.5315"),
        (
            "muon: depthwise kernels as matrices",
            "min(parameter.shape[:2]) >= NARROWEST",
            "max(parameter.shape[:2]) >= NARROWEST",
        ),
        ("muon: Adam's mean not corrected", "mean / (1 - decay ** state", "mean / (1 - 0 * state"),
    ),
)
