"""Runs a program of a laid out root as a container engine would: another user, no capabilities, a read-only root, volumes."""

import os
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path

CGROUP_FOLDERS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory")


class Memory:
    """A control group with a limit of what its processes may have resident, of version 2 or 1, whichever is there."""

    def __init__(self, name, limit):
        self.limit = limit
        for folder in map(Path, CGROUP_FOLDERS):
            controllers = folder / "cgroup.controllers"
            if controllers.exists() and "memory" in controllers.read_text().split():
                self.version, names = 2, ("memory.max", "memory.peak", "memory.swap.max")
            elif (folder / "memory.limit_in_bytes").exists():
                self.version, names = 1, ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.memsw.limit_in_bytes")
            else:
                continue
            self.folder, (most, self.peak_file, swap) = folder / f"{name}-{secrets.token_hex(4)}", names
            try:
                if self.version == 2:
                    (folder / "cgroup.subtree_control").write_text("+memory")
                self.folder.mkdir()
                (self.folder / most).write_text(str(limit))
            except OSError:
                continue
            try:
                (self.folder / swap).write_text(str(0 if self.version == 2 else limit))
            except OSError:
                pass  # A kernel without the accounting of swap.
            return
        raise LookupError("no control group for memory can be made here (version 2 or 1)")

    def peak(self):
        return int((self.folder / self.peak_file).read_text())

    def resident(self):
        """What cannot be given back: without the page cache."""
        stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return int(stat["anon" if self.version == 2 else "rss"])

    def killed(self):
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        stat = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(stat.get("oom_kill", 0))

    def remove(self):
        # Its last process may not be gone yet.
        for _ in range(50):
            try:
                for pid in (self.folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                return self.folder.rmdir()
            except OSError:
                time.sleep(0.1)


def start(root, command, *, network, user="65532:65532", volumes=(), environment=None, memory=None, log=None, trace=None):
    """Starts `command` in `root`. A volume is (folder or file here, path there, whether read-only). Its system
    calls are written to `trace`."""
    place = Path(f"{root}.mounted")
    place.mkdir(exist_ok=True)
    script = ["set -e"]
    if memory:
        script.append(f"echo $$ > {memory.folder}/cgroup.procs")
    script += [f"mount --bind {root} {place}", f"mount -o remount,bind,ro,nosuid,nodev {place}"]
    for source, target, read_only in volumes:
        script.append(f"mount --bind {source} {place}{target}")
        if read_only:
            script.append(f"mount -o remount,bind,ro {place}{target}")
    script += [f"mount --rbind /dev {place}/dev", f"mount -t proc proc {place}/proc"]
    script.append(f'exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all '
                  f'chroot --groups= --userspec={user} {place} "$@"')
    joined = ["nsenter", f"--net=/proc/{network}/ns/net", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c",
              "\n".join(script), "sh", *command]
    if trace:
        joined = ["strace", "-f", "-qq", "-e", "signal=none", "-o", trace, *joined]
    out = open(log, "ab") if log else subprocess.PIPE
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "RUST_BACKTRACE": "0"} | (environment or {})
    return subprocess.Popen(joined, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment)


def program(process):
    """The process id, seen from here, of what runs in the container: the last of the chain nsenter, unshare, program."""
    pid = process.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def kill(process):
    """Kills all that runs in the container. `--kill-child` does not do it: a program that takes another user forgets its parent's end."""
    def depth(pid):
        return len(re.search(r"(?m)^NSpid:(.*)$", Path(f"/proc/{pid}/status").read_text())[1].split())

    pid = process.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
        if depth(pid) > depth(process.pid):
            # The first process of its namespace: with it the kernel ends all others in there.
            return os.kill(pid, signal.SIGKILL)
    process.kill()


def traced(trace, path):
    """The names of the system calls of the program at `path`, and of its threads, from its start on."""
    main, before, found = None, set(), set()
    for line in Path(trace).read_text(errors="replace").splitlines():
        pid, text = line.split(None, 1)
        if main is None:
            before.add(pid)
            if text.startswith(f'execve("{path}"'):
                main = pid
        elif (pid == main or pid not in before) and (name := re.match(r"(?:<\.\.\. )?(\w+)[ (]", text)):
            found.add(name[1])
    return found
