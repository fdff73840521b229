"""The flight verbs of the command line, one module each: add_arguments(parser), run(args)."""

import argparse
import logging

from jetson_cluster import config


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """What every flight verb takes."""
    parser.add_argument("--config", default=config.DEFAULT_PATH, metavar="FILE",
                        help="settings (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override one setting, e.g. --set inbox.settle_s=0.2; repeatable")


def printable(text: str) -> str:
    """`text` with whatever would move the cursor or colour the terminal as \\xNN or \\uNNNN."""
    def shown(letter: str) -> str:
        code = ord(letter)
        if 0xdc80 <= code <= 0xdcff:
            code -= 0xdc00  # a byte of a file's name that is not UTF-8
        return "\\x%02x" % code if code < 0x100 else "\\u%04x" % code

    return "".join(letter if letter.isprintable() else shown(letter) for letter in text)


def config_of(args: argparse.Namespace) -> config.Config:
    """The settings asked for; also sets the log level they name, unless --verbose did."""
    loaded = config.load(args.config, args.overrides)
    if not args.verbose:
        logging.getLogger().setLevel(loaded.log_level.upper())
    return loaded
