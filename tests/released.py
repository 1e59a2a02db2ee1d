"""The authors' scripts, imported as they stand, run on images and random draws handed to them.

What of their surroundings is gone, or is not installed, is stood in for here; nothing of theirs is
copied or rewritten.
"""

import collections
import contextlib
import importlib
import io
import os
import sys
import tempfile
import types
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import rotate


class Differs(Exception):
    """Their code asked for other draws than ours made."""


class Draws(collections.defaultdict):
    """Random draws by kind, in the order in which ours made them and theirs has to ask for them."""

    def __init__(self):
        super().__init__(collections.deque)

    def recorded(self, owner, name, kind, keep=lambda result, *args: [result]):
        """A patch of a function by which its results are remembered.

        keep: function(result, *args) -> list of draws.
        """
        inner = getattr(owner, name)

        def record(*args):
            result = inner(*args)
            self[kind].extend(keep(result, *args))
            return result

        return mock.patch.object(owner, name, record)

    def take(self, kind, fits=lambda draw: True):
        if not self[kind]:
            raise Differs(f"their code draws {kind} more often than ours")
        draw = self[kind].popleft()
        if not fits(draw):
            raise Differs(f"their code draws {kind} from others, or another number of them")
        return draw


class Instead:
    """A module with some names replaced, for one that imports it."""

    def __init__(self, module, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


class ClassErrorMeter:
    """Stands in for torchnet's: the share of right answers in percent."""

    def __init__(self, accuracy):
        self.reset()

    def reset(self):
        self.n = self.wrong = 0

    def add(self, logits, labels):
        self.wrong += (logits.argmax(1) != labels).sum().item()
        self.n += len(labels)

    def value(self):
        return [(1 - self.wrong / self.n) * 100]


STAND_INS = {
    "kornia": types.ModuleType("kornia"),  # imported, not called
    "torchnet": types.SimpleNamespace(meter=types.SimpleNamespace(ClassErrorMeter=ClassErrorMeter)),
    "scipy.ndimage.interpolation": types.SimpleNamespace(rotate=rotate),
}


@contextlib.contextmanager
def modules_of(folder):
    """Imports find the stand-ins and what lies in `folder` before ours of the same names.

    Ours are back afterwards.
    """
    names = {path.stem for path in folder.glob("*.py")} | STAND_INS.keys()
    ours = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(STAND_INS)
    importlib.invalidate_caches()
    try:
        # Their folder is left as it is, without a __pycache__.
        with mock.patch.multiple(sys, path=[str(folder), *sys.path], dont_write_bytecode=True):
            yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(ours)


class Images(torch.utils.data.Dataset):
    """Stands in for any of torchvision's datasets: the images of a data.Dataset."""

    def __init__(self, dataset, train=False, split=None, transform=None):
        part = "train" if train or split == "train" else "test"
        self.images, self.labels = (
            getattr(dataset, f"images_{part}"),
            getattr(dataset, f"labels_{part}"),
        )
        self.classes, self.transform = dataset.classes, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i].permute(1, 2, 0).numpy()), int(self.labels[i])


def run(path, words, model, dataset, draws):
    """Main of the script `path` with the command line `words`, and with `model` for judges too.

    dataset: a data.Dataset. draws: of ours, all of which have to be asked for, else Differs.
    Returns start and canvases, labels, accuracy (of the last judge), networks ([(ours, theirs)] as
    they were born) and optimizers (that of the canvases, then one per network of the pool as it was
    born)."""
    made = types.SimpleNamespace(networks=[], optimizers=[])

    def permutation(of):
        kind = "images of all classes" if len(of) == dataset.train else "images of a class"
        return draws.take(kind, lambda indices: np.isin(indices, of).all())

    def shuffle(places):
        picked, _ = draws.take("networks of the pool", lambda draw: draw[1] == len(places))
        places[:] = picked + [place for place in places if place not in picked]

    def diff_augment(x, strategy, seed=-1, param=None):
        op, u = draws.take(
            "augmentations", lambda draw: len(draw.u) == (len(x) if seed == -1 else 1)
        )
        columns = iter(u.to(x).expand(len(x), -1).T.clone())

        def rand(*size, **options):
            return next(columns).view(size)

        def randint(low, high, size, **options):
            if len(size) == 1:  # which operation
                return torch.tensor([strategy.split("_").index(op)])
            return low + (rand(*size) * (high - low)).floor().long()

        tools.torch = Instead(torch, float=x.dtype, rand=rand, randint=randint)
        # With one channel, strides after a crop say channels_last to today's convolutions; `view`
        # refuses what they give back.
        return released.DiffAugment(x, strategy, seed=seed, param=param).clone(
            memory_format=torch.contiguous_format
        )

    def get_network(name, *shape):
        # `name` is another for judges: width 128, whatever has distilled
        net = released.get_network(model, *shape)
        ours, state = draws.take("initial weights")
        net.load_state_dict(state)
        made.networks.append((ours, net))
        return net

    class Order:
        def __init__(self, images):
            self.size = len(images)

        def __iter__(self):
            return iter(
                draws.take("orders of a judge's images", lambda order: len(order) == self.size)
            )

    def loader(images, batch_size, shuffle, num_workers, inner=torch.utils.data.DataLoader):
        return inner(images, batch_size, sampler=Order(images) if shuffle else None)

    def sgd(parameters, **options):
        made.optimizers.append(torch.optim.SGD(parameters, **options))
        if len(made.optimizers) == 1:
            made.start = made.optimizers[0].param_groups[0]["params"][0].detach().clone()
        return made.optimizers[-1]

    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(scratch)
        os.mkdir("checkpoints")
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for patch in (
            modules_of(path.parent),
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch.object(sys, "argv", [path.name, *words]),
            mock.patch.object(torch.utils.data, "DataLoader", loader),
            mock.patch.object(F, "upsample", F.interpolate, create=True),
            mock.patch.multiple(torch.cuda, is_available=lambda: False, device_count=lambda: 0),
        ):
            stack.enter_context(patch)
        tools, losses = importlib.import_module("dc_utils"), importlib.import_module("utils")
        released = types.SimpleNamespace(
            DiffAugment=tools.DiffAugment, get_network=tools.get_network
        )
        tools.DiffAugment, tools.get_network = diff_augment, get_network
        images = {dataset.name: lambda root, download, **options: Images(dataset, **options)}
        tools.datasets = losses.datasets = types.SimpleNamespace(**images)
        script = importlib.import_module(path.stem)
        script.torch = Instead(
            torch, float=torch.get_default_dtype(), optim=Instead(torch.optim, SGD=sgd)
        )
        script.np = Instead(np, random=Instead(np.random, permutation=permutation))
        script.random = types.SimpleNamespace(shuffle=shuffle)
        script.main()
        (saved,) = Path("result").glob("res_*.pt")
        saved = torch.load(saved, weights_only=False)
        ((made.canvases, made.labels),) = saved["data"]
        made.accuracy = sum(*saved["accs_all_exps"].values())  # of one judge, or none
    for kind, queue in draws.items():
        if queue:
            raise Differs(f"their code draws {kind} less often than ours, by {len(queue)}")
    return made
