"""How canvases step down their gradient: SGD in closed form for all classes, or Adam for each.

The published code takes one optimizer step per class over the whole tensor of canvases. So a class
keeps drifting along its momentum while the other classes have their turn. Both optimizers here do
that. A pass over all classes is

    for classes in optimizer.turns:
        optimizer.drift_before_(canvases)
        gradient = that of the loss of `classes` at their current canvases
        optimizer.step_(canvases, classes, gradient)
        optimizer.drift_after_(canvases)

and changes the canvases in place, as the underscores say.
"""

import torch


class ClosedFormSGD:
    """SGD with momentum: all classes of a pass in one turn.

    A class's gradient depends on its own canvases only, and the network stays the same within a
    pass. So all gradients of a pass can be computed at once, and the drift during the other
    classes' turns has a closed form: k steps with gradient 0 are x - lr v (mu + ... + mu^k) and
    v mu^k.
    """

    def __init__(self, canvases, lr, served, own, momentum=0.5):
        """canvases: (own classes, ...), which the calls below have to be given.

        served: the ranges of classes that the published code serves one after the other. own: the
        range of classes that `canvases` holds.
        """
        self.momentum = momentum
        self.own = own
        self.turns = [own]
        self.velocity = torch.zeros_like(canvases)
        turn_of_class = [turn for turn, classes in enumerate(served) for c in classes if c in own]
        self._turns_before = torch.tensor(turn_of_class, dtype=torch.float64)  # of each own class
        self._turns_after = len(served) - 1 - self._turns_before
        self.lr = None
        self.set_rate(lr)

    def set_rate(self, lr):
        """The learning rate from here on."""
        if lr == self.lr:
            return
        self.lr = lr
        self._before = self._drift_factors(self._turns_before)
        self._after = self._drift_factors(self._turns_after)

    def _drift_factors(self, steps):
        """The factors of distance and velocity of `steps` steps without gradient.

        steps: a number for each class. Each factor: (own classes, 1, ...).
        """
        decay = self.momentum**steps
        distance = self.lr * self.momentum * (1 - decay) / (1 - self.momentum)
        shape = (-1, *[1] * (self.velocity.dim() - 1))
        return distance.to(self.velocity).view(shape), decay.to(self.velocity).view(shape)

    def drift_before_(self, canvases):
        """The steps of a pass that serve other classes before a class has its turn."""
        self._drift_(canvases, *self._before)

    def step_(self, canvases, classes, gradient):
        """gradient: of the loss of `classes`, all of `own`, of the canvases' shape."""
        self.velocity.mul_(self.momentum).add_(gradient)
        canvases.add_(self.velocity, alpha=-self.lr)

    def drift_after_(self, canvases):
        """The steps of a pass that serve other classes after a class had its turn."""
        self._drift_(canvases, *self._after)

    def _drift_(self, canvases, distance, decay):
        canvases.addcmul_(self.velocity, distance, value=-1)
        self.velocity.mul_(decay)

    def state_dict(self, gather):
        """gather: function, own rows, one per class -> the rows of all classes."""
        return {"velocity": gather(self.velocity)}

    def load_state_dict(self, state):
        """From a `state_dict` of all classes, of which the own ones are taken."""
        self.velocity.copy_(state["velocity"][self.own.start : self.own.stop])


class PerClassAdam:
    """Adam with PyTorch's defaults, a turn for each class: no closed form, so slow.

    The drift is in the steps themselves: each one goes over all canvases, with gradient 0 where it
    is not a class's turn. Its methods are those of ClosedFormSGD.
    """

    def __init__(self, canvases, lr, served, own):
        self.own = own
        # A turn of classes that another process owns is an empty range of own ones: their step
        # drifts all the same.
        self.turns = [
            range(max(classes.start, own.start), min(classes.stop, own.stop)) for classes in served
        ]
        self.adam = torch.optim.Adam([canvases], lr=lr)

    def set_rate(self, lr):
        """The learning rate from here on."""
        for group in self.adam.param_groups:
            group["lr"] = lr

    def drift_before_(self, canvases):
        """Nothing: see the class."""

    def step_(self, canvases, classes, gradient):
        """gradient: of the loss of `classes`, (classes, ...)."""
        canvases.grad = torch.zeros_like(canvases)
        if len(classes) > 0:
            first = classes.start - self.own.start
            canvases.grad[first : first + len(classes)] = gradient
        self.adam.step()

    def drift_after_(self, canvases):
        """Nothing: see the class."""

    def state_dict(self, gather):
        return self._of_rows(self.adam.state_dict(), gather)

    def load_state_dict(self, state):
        own = slice(self.own.start, self.own.stop)
        self.adam.load_state_dict(self._of_rows(state, lambda rows: rows[own]))

    def _of_rows(self, state, function):
        """A state of Adam with `function` applied to its moments; its step is a number."""
        moments = state["state"].get(0)
        if moments is None:  # before the first step
            return {**state, "state": {}}
        changed = {}
        for name, value in moments.items():
            changed[name] = function(value) if value.dim() > 0 else value
        return {**state, "state": {0: changed}}


OPTIMIZERS = {"sgd": ClosedFormSGD, "adam": PerClassAdam}  # --optim
