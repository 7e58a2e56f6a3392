"""What `agentzoo.check_env` reports."""

from typing import Literal, NamedTuple

import gymnasium as gym

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")


class Finding(NamedTuple):
    """One thing that was found about an environment.

    Attributes:
      level: "error" if training will fail, "warning" if it will be slow or will not do what the
        user expects, and "info" for everything else.
      text: what was found, as a sentence.
      advice: what to do, as a sentence, or "".
    """

    level: Level
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice}".strip()


class Report:
    """All findings about an environment. `print(report)` shows them.

    Args:
      name: the name of the environment.

    Attributes:
      name: the name of the environment.
      findings: the findings, in the order in which they were found.
      runner: the runner that fits the environment.
      action_space: the action space of one environment; None if it has none.
    """

    def __init__(self, name: str):
        self.name = name
        self.findings: list[Finding] = []
        self.runner = "host"
        self.action_space: gym.Space | None = None

    def add(self, level: Level, text: str, advice: str = "") -> None:
        """Add a finding, unless it is there already."""
        finding = Finding(level, text, advice)
        if finding not in self.findings:
            self.findings.append(finding)

    def of(self, level: Level) -> list[Finding]:
        """Return the findings of a level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def errors(self) -> list[Finding]:
        """The findings because of which training will fail."""
        return self.of("error")

    @property
    def warnings(self) -> list[Finding]:
        """The findings because of which training will be slow or surprising."""
        return self.of("warning")

    @property
    def infos(self) -> list[Finding]:
        """The other findings."""
        return self.of("info")

    def __str__(self) -> str:
        lines = [f"{self.name}: errors {len(self.errors)}, warnings {len(self.warnings)}"]
        for level in LEVELS:
            for finding in self.of(level):
                lines.append(f"  {level:8}{finding.text}")
                if finding.advice:
                    lines.append(f"  {'':8}-> {finding.advice}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Report of {self}>"
