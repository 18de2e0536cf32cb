"""Correlations by their definitions."""

import itertools
import math

import numpy as np


def average_ranks(x):
  """Ranks, equal values sharing theirs."""
  return [sum(b < a for b in x) + sum(b == a for b in x) / 2 for a in x]


def pearson(x, y):
  """NaN where either is constant."""
  x, y = np.array(x) - np.mean(x), np.array(y) - np.mean(y)
  scale = math.sqrt((x @ x) * (y @ y))
  return x @ y / scale if scale else math.nan


def kendall(x, y):
  """Tau-b."""
  if len(x) < 2:
    return math.nan
  signs = [
    (np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
    for i, j in itertools.combinations(range(len(x)), 2)
  ]
  a, b = np.array(signs, float).T
  scale = math.sqrt((a @ a) * (b @ b))
  return a @ b / scale if scale else math.nan


def spearman(x, y):
  """NaN where either is constant."""
  return pearson(average_ranks(x), average_ranks(y))
