"""Facts about evaluate.py's help."""

import evaluate
from bacon.score import command


def test_help_speaks_to_users_examples_first_within_80_columns():
    text = command.build_parser(evaluate.__doc__).format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert (
        text.index("python evaluate.py SET.pt --dataset")
        < text.index("\n  --recursive")
        < text.index("--device")
    )
    for line in evaluate.__doc__.splitlines():
        if "python evaluate.py" in line:  # what it shows can be typed
            command.build_parser(None).parse_args(line.strip().split("  ")[0].split()[2:])
