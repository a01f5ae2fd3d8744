"""Layers; those of manual_cast bring their weights to the input's dtype at use."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class disable_weight_init:
    class Linear(torch.nn.Linear):
        comfy_cast_weights = False

        def forward(self, x):
            if not self.comfy_cast_weights:
                return super().forward(x)
            return F.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))

    class Conv1d(torch.nn.Conv1d):
        comfy_cast_weights = False

        def forward(self, x):
            if not self.comfy_cast_weights:
                return super().forward(x)
            return self._conv_forward(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))


class manual_cast:
    class Linear(disable_weight_init.Linear):
        comfy_cast_weights = True

    class Conv1d(disable_weight_init.Conv1d):
        comfy_cast_weights = True
