"""`jetson-cluster apply FILE`: follow an order file by hand, just as the drop folder would.

In: a YAML or CSV file of orders, see orders.py. Out: a line for each order that says what became of
it. The file stays where it is; followed twice it changes nothing.
"""

import argparse
import json
import os

from jetson_cluster import orders
from jetson_cluster.applying import PARTLY, REFUSED
from jetson_cluster.clocks import utc_now
from jetson_cluster.downlink import printable_path
from jetson_cluster.drop_folder import follow, follower_of, read
from jetson_cluster.errors import UserError
from jetson_cluster.verbs import add_config_arguments, config_of, printable
from jetson_cluster.verbs.opening import complain, downlink_of, open_catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="orders, as .yaml or .csv")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0: every order was followed, now or before; 2: one or more were refused."""
    config, name = config_of(args), printable_path(os.path.basename(args.file))
    try:
        content = read(args.file)
    except OSError as error:
        raise UserError("orders %s: cannot be read: %s" % (args.file, error.strerror or error))
    parsed = orders.parse(content, name)
    origin, said = "by hand, " + name, []
    with open_catalog(config) as catalog:
        follower = follower_of(catalog, lambda: downlink_of(config, catalog), utc_now)
        for order in parsed.refused + parsed.actions:
            said.append((order.line, order.order_id) + follow(follower, order, name, origin))
    said.sort(key=lambda one: one[0])
    any_refused = any(result in (REFUSED, PARTLY) for _, _, result, _ in said)
    if args.json:
        print(json.dumps([dict(zip(("line", "id", "result", "words"), one)) for one in said],
                         indent=1))
        return 2 if any_refused else 0
    for line, _, result, words in said:
        told = "%s%s: %s: %s" % (name, " line %d" % line if line else "", result, words)
        if result in (REFUSED, PARTLY):
            complain(told)
        else:
            print(printable(told))
    if not said:
        print(printable("%s: no orders in it" % name))
    return 2 if any_refused else 0
