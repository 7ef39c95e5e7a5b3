import os
import threading

from tasks.processes import DEVICES, environment


def test_threads_do_not_give_each_others_environment() -> None:
    """Two that start a child each, at once: as two GPUs' processes are started."""
    meeting, seen = threading.Barrier(2, timeout=30), {}
    before = os.environ.get(DEVICES)

    def start(device: str) -> None:
        meeting.wait()
        for _ in range(2000):
            with environment({DEVICES: device}):
                seen.setdefault(device, set()).add(os.environ[DEVICES])

    threads = [threading.Thread(target=start, args=(device,)) for device in ("0", "1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"0": {"0"}, "1": {"1"}}
    assert os.environ.get(DEVICES) == before
