"""The log and the progress of a run."""

import io
import json

from hier_jax.training import report


def test_log_drops_what_came_after_the_checkpoint(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  log = report.MetricsLog(path)
  for step in range(5):
    log.write({'kind': 'train', 'step': step, 'loss': 0.1 * step})
  with path.open('a') as file:
    file.write('{"kind": "train", "st')  # a write that was cut short
  log = report.MetricsLog(path, step=2)
  log.write({'kind': 'eval', 'step': 3, 'name': 'x'})
  records = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r['step'] for r in records] == [0, 1, 2, 3]
  assert log.evaluations() == {'x': records[-1]}


def test_log_of_another_process_writes_nothing(tmp_path):
  log = report.MetricsLog(tmp_path / 'metrics.jsonl', enabled=False)
  log.write({'kind': 'eval', 'step': 0, 'name': 'x'})
  assert list(tmp_path.iterdir()) == []
  assert 'x' in log.evaluations()


class Terminal(io.StringIO):
  def isatty(self):
    return True


METRICS = {'loss': 2.5, 'metric': 2.0, 'hier': 1.0, 'grad_norm': 9.0}


def test_bar_on_a_terminal_shows_losses_rate_and_time_left():
  file = Terminal()
  progress = report.Progress(100, batch_size=60, file=file)
  progress.update(50, METRICS, new_period=False)
  progress.say('hello')
  progress.close()
  text = file.getvalue()
  for part in ('50/100', 'loss=2.5', 'hier=1', 'img/s=', '<', 'hello\n'):
    assert part in text, part


def test_a_line_a_period_elsewhere():
  file = io.StringIO()
  progress = report.Progress(100, batch_size=60, file=file)
  progress.update(10, METRICS, new_period=False)
  progress.update(50, METRICS, new_period=True)
  progress.close()
  (line,) = file.getvalue().splitlines()
  assert line.startswith('step 50/100 loss 2.5 metric 2 hier 1 img/s ')
  assert ' left ' in line
