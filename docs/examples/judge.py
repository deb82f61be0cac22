#!/usr/bin/env python3
"""Judges a submission against cases: the smallest of judges.

    python3 judge.py CAPSULECTL

A submission gets its input on stdin, no network, no files but its own, and a second of CPU time.
"""
import json
import subprocess
import sys

CASES = [("1 2\n", "3\n"), ("10 -4\n", "6\n")]
SUBMISSIONS = {
    "right": "print(sum(map(int, input().split())))",
    "wrong": "print(max(map(int, input().split())))",
    "endless": "while True: pass",
    "greedy": "x = bytearray(1 << 30)",
    "broken": "print(",
}
VERDICTS = {"timeout_wall": "time limit", "timeout_cpu": "time limit", "oom": "memory limit", "output_limit": "output limit",
            "signaled": "runtime error", "seccomp": "runtime error", "pids_limit": "runtime error", "disk_limit": "runtime error"}


def judge(capsulectl, program):
    for given, wanted in CASES:
        request = {
            "command": ["python3", "-c", program], "stdin": given, "timeout_ms": 20000, "grace_ms": 0,
            "resources": {"cpu_time_ms": 1000, "memory_bytes": 64 << 20, "max_pids": 4, "max_output_bytes": 65536, "output_policy": "kill"},
        }
        done = subprocess.run([capsulectl, "run", "--json", "--exit-code-mode", "envelope"],
                              input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True)
        response = json.loads(done.stdout)
        if response["status"] == "error":
            # No verdict about the submission: capsule could not run it.
            raise SystemExit(response["error"]["code"] + ": " + response["error"]["message"])
        reason = response["termination"]["reason"]
        if reason != "exited":
            return VERDICTS.get(reason, "judge failed: " + reason)
        if response["exit_code"] != 0:
            return "runtime error"
        if response["stdout"] != wanted:
            return "wrong answer"
    return "accepted"


def main():
    for name, program in SUBMISSIONS.items():
        print(name + ":", judge(sys.argv[1] if len(sys.argv) > 1 else "capsulectl", program))


if __name__ == "__main__":
    main()
