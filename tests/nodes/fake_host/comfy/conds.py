"""Conditions that go to the network as they are."""


class CONDRegular:
    def __init__(self, cond) -> None:
        self.cond = cond


class CONDConstant(CONDRegular):
    """The same for what is no tensor."""
