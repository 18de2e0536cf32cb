"""Where the time of a run goes, and its progress."""

import io

import pytest

from hier_jax.training.logs import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


METRICS = {'loss': 2.5, 'metric': 2.0, 'hier': 1.0, 'grad_norm': 9.0}
TIMING = {'images_per_second': 120.4, 'share/data': 0.031}


def test_bar_on_a_terminal_shows_losses_rate_and_time_left():
  file = Terminal()
  bar = progress.Progress(100, file=file)
  bar.update(50, METRICS, TIMING, new_period=False)
  bar.say('hello')
  bar.close()
  text = file.getvalue()
  shown = ('50/100', 'loss=2.5', 'hier=1', 'img/s=120', 'data=3%', '<')
  for part in (*shown, 'hello\n'):
    assert part in text, part


def test_a_line_a_period_elsewhere():
  file = io.StringIO()
  bar = progress.Progress(100, file=file)
  bar.update(10, METRICS, TIMING, new_period=False)
  bar.update(50, METRICS, TIMING, new_period=True)
  bar.close()
  (line,) = file.getvalue().splitlines()
  figures = 'step 50/100 loss 2.5 metric 2 hier 1 img/s 120 data 3% left '
  assert line.startswith(figures)


def test_clock_splits_each_period(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])

  def pass_by(seconds):
    now[0] += seconds

  def batches():
    for seconds in (1, 3):
      pass_by(seconds)
      yield seconds
    pass_by(2)  # what it takes to learn that there are no more

  clock = progress.Clock(step=4, batch_size=30)
  for seconds in clock.waiting(batches()):
    with clock.spent('step'):
      pass_by(10 * seconds)
  with clock.spent('compile'):
    pass_by(30)
  with clock.spent('evaluation'):
    pass_by(5)
  with pytest.raises(KeyError), clock.spent('checkpoint'):
    pass_by(8)
    raise KeyError
  pass_by(1)
  # 6 + 40 + 30 + 5 + 8 + 1 seconds, 43 of them not in training; 2 steps.
  assert clock.lap(6) == {
    'kind': 'timing',
    'step': 6,
    'images_per_second': 60 / 47,
    'seconds': 90.0,
    'share/data': 6 / 90,
    'share/compile': 30 / 90,
    'share/step': 40 / 90,
    'share/evaluation': 5 / 90,
    'share/checkpoint': 8 / 90,
  }
  with clock.spent('evaluation'):
    pass_by(2)
  last = clock.lap(6)
  assert 'images_per_second' not in last
  assert [last['seconds'], last['share/evaluation']] == [2.0, 1.0]


def test_wait_beside_a_running_step_is_no_wait_for_data(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  busy = iter([False, True, True, False])

  def batches():
    for seconds in (1, 2, 4):
      now[0] += seconds
      yield seconds

  clock = progress.Clock(step=0, batch_size=1)
  assert list(clock.waiting(batches(), lambda: next(busy))) == [1, 2, 4]
  found = clock.lap(3)
  assert (found['share/data'], found['share/step']) == (1 / 7, 6 / 7)
