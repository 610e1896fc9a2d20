"""Looks for known vulnerabilities in the packages of lock files, with pip-audit.

    python .ci/audit.py envs/workflow.lock.txt ...

Exits with 1 if a package has one. If the database cannot be reached, it says so and exits with 0.
"""

import json
import subprocess
import sys


def audit(lock: str) -> list[dict] | None:
    """Return what pip-audit reports of each package; None if it could not report anything."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps"]
    command += ["--progress-spinner", "off", "--format", "json", "--requirement", lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        return json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def main(locks: list[str]) -> int:
    vulnerable = 0
    for lock in locks:
        packages = audit(lock)
        checked = [package for package in packages or () if "vulns" in package]
        if not checked:
            print(f"{lock}: skipped, the database of vulnerabilities cannot be reached")
            break
        print(f"{lock}: {len(checked)} of {len(packages)} packages checked")
        for package in checked:
            for found in package["vulns"]:
                vulnerable += 1
                fixed = ", ".join(found.get("fix_versions") or []) or "no version"
                name = f"{package['name']} {package['version']}"
                print(f"  {name}: {found['id']}, fixed in {fixed}")
    if vulnerable:
        print("Update the packages (make lock UPGRADE=--upgrade) and run the tests.")
    return int(vulnerable > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
