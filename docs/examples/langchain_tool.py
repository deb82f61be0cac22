#!/usr/bin/env python3
"""A tool for LangChain and frameworks of its kind: a class with name, description and invoke.

    python3 langchain_tool.py CAPSULECTL

With LangChain installed:

    from langchain_core.tools import StructuredTool
    box = Sandbox()
    tool = StructuredTool.from_function(box.invoke, name=box.name, description=box.description)
"""
import json
import subprocess
import sys


class Sandbox:
    name = "sandbox"
    description = "Run a shell command in a fresh Linux sandbox without network. Nothing is kept between calls."

    def __init__(self, capsulectl="capsulectl", profile="ai-agent"):
        self.command = [capsulectl, "run", "--json", "--profile", profile, "--exit-code-mode", "envelope"]

    def invoke(self, command: str) -> str:
        """What the command printed, and how it ended where that was not well."""
        request = json.dumps({"command": ["sh", "-c", command]})
        done = subprocess.run(self.command, input=request.encode(), stdout=subprocess.PIPE, check=True)
        response = json.loads(done.stdout)
        if response["status"] == "error":
            return "error: " + response["error"]["message"]
        text = response["stdout"] + response["stderr"]
        if response["exit_code"] != 0:
            text += "[" + response["termination"]["reason"] + ", exit code " + str(response["exit_code"]) + "]\n"
        return text


def main():
    box = Sandbox(sys.argv[1] if len(sys.argv) > 1 else "capsulectl")
    for command in ("echo hello | tr a-z A-Z", "echo first >/workspace/x; cat /workspace/x; exit 3", "cat /workspace/x"):
        print("$", command)
        print(box.invoke(command), end="")


if __name__ == "__main__":
    main()
