"""The options of ``infscale compare``. Imports nothing heavy."""

import argparse


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand ``compare``."""
    parser = commands.add_parser(
        "compare",
        help="REST or gRPC, for an endpoint of your own",
        description="Loads two addresses of one running service beyond what they can take, for some minutes, and says "
        "which protocol answers faster. Do not point it at what others rely on.",
    )
    parser.add_argument("--rest", required=True, metavar="URL", help="http or https, with its path")
    parser.add_argument("--grpc", required=True, metavar="URL", help="grpc or grpcs, ending in /package.Service/Method")
    for name, what in (("rest", "HTTP bodies"), ("grpc", "serialised protobuf messages")):
        parser.add_argument(f"--body-{name}", nargs="+", required=True, metavar="FILE", help=what)
        parser.add_argument(f"--header-{name}", action="append", default=[], metavar="'K: V'", help="may be repeated")
    parser.add_argument("--slo", default="100ms", metavar="T", help="limit of the p95 response time (default: 100ms)")
    parser.add_argument("--replicates", default="5", metavar="R", help="repeats of every arm and rate (default: 5)")
    parser.add_argument("--seconds", default="3", metavar="S", help="of arrivals of a trial (default: 3)")
    parser.add_argument("--timeout", default="2", metavar="S", help="of a request (default: 2)")
    parser.add_argument("--max-rate", default="5000", metavar="R", help="never offer more requests/s (default: 5000)")
    parser.add_argument("--out", default="", metavar="FOLDER", help="keep the run there (default: it is thrown away)")
