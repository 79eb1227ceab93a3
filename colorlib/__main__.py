"""`python -m colorlib PHOTO_OR_FOLDER...`: colour photos with the network that comes with the package."""

import argparse
import sys
import warnings

_HELP = """\
Colour photos, or all photos below folders, with the network that comes with colorlib. No GPU is needed. Only the
lightness of a photo is used, whether it has colours or not. Your files are only read: results are new files of the
same size with the photo's metadata, in sRGB with 8 bits a channel, and nothing is overwritten unless you say so.
Start the same command again after an interruption, and it goes on."""
_EXAMPLES = """\
examples:
  python -m colorlib grandma.jpg                makes grandma_coloured.jpg beside it
  python -m colorlib scans/                     all below scans/, into scans_coloured/
  python -m colorlib grandma.jpg -o new.png     into that file
  python -m colorlib *.tif -o coloured -s 1.3   into that folder, with stronger colours

exit status: 0 all are coloured, 1 some could not be (the reasons are listed), 2 wrong arguments, 130 interrupted"""


def main(arguments=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m colorlib",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO_OR_FOLDER", help="what to colour")
    add("-o", "--out", help="a folder, made if need be; for a single photo also a file")
    add("-s", "--strength", type=_number(0, 10), default=1, metavar="X", help="of colour: 0 is grey, 1 as predicted")
    add("-f", "--format", choices=["jpg", "png", "tif", "webp"], help="of results; by default the photo's own, or png")
    add("--beside", action="store_true", help="the photo to the left of the result, in one picture")
    add("--overwrite", action="store_true", help="replace results that exist")
    add("--model", metavar="RUN", help="a run of your own, its folder or its weights file")
    add("--side", type=_number(16, 4096, int), metavar="N", help="short side of what the network sees, in pixels")
    add("--temperature", type=_number(0, 10), metavar="T", help="if it chooses among colours: low is vivid, 1 is dull")
    given = parser.parse_args(arguments)
    from colorlib import colorize, runtime  # here: what is wrong with the arguments is said before torch is there

    ending = "_beside" if given.beside else "_coloured"
    try:
        pairs = colorize.plan(given.photos, given.out, given.format and f".{given.format}", ending)
        if given.out and len(pairs) > 1:
            runtime.writable(given.out, "-o")  # or each photo would say so
        return _colour(colorize, *_network(given), pairs, given)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _number(low, high, kind=float):
    def number(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, not {text}")
        return value

    return number


def _network(given):
    """The network and the side of what it sees."""
    from colorlib import models, runtime

    if given.model:
        from colorlib import runs  # not above: it needs pandas, which takes a while

        run = runs.open_run(given.model)
        model, side = run.model(), run.recipe.size
    else:
        model, facts = models.shipped()
        model, side = model.to(runtime.device()), facts["recipe"]["size"]
    if given.temperature is not None and not hasattr(model, "T"):
        raise ValueError("--temperature: this network does not choose among colours; --strength is what it has.")
    if given.temperature is not None:
        model.T = given.temperature
    return model, given.side or side


def _colour(colorize, model, side, pairs, given):
    from colorlib import runtime

    options = {"strength": given.strength, "beside": given.beside, "overwrite": given.overwrite}
    made, there, faults, said = 0, 0, [], set()
    with runtime.bar(len(pairs), "colouring", disable=len(pairs) == 1) as bar:

        def say(text, about=None):  # above the bar, and of many photos only for the first
            if (about or text) not in said:
                said.add(about or text)
                bar.write(text, file=sys.stderr)

        warnings.showwarning = lambda message, *_: say(str(message))
        try:
            for result in colorize.colorize_each(model, pairs, side, **options):
                bar.update()
                if not result.coloured:
                    faults.append(result.note)
                elif result.note == colorize.THERE:
                    there += 1
                    text = f"{result.coloured} {colorize.THERE}; --overwrite makes it, and others that were, anew."
                    say(text, about=colorize.THERE)
                else:
                    made += 1
                    if result.note:
                        text = f"{result.photo}{' (and maybe others)' * (len(pairs) > 1)}: {result.note}."
                        say(text, about=result.note)
        except (KeyboardInterrupt, OSError) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            say(f"\n{'Stopped' if interrupted else error}. {made} photos are coloured; the same command goes on.")
            return 130 if interrupted else 1
    for fault in dict.fromkeys(faults):
        print(fault, file=sys.stderr)
    if len(pairs) == 1 and made:
        print(f"{result.coloured}")
    elif len(pairs) > 1:
        print(f"{made} photos coloured, {there} were there already, {len(faults)} could not be coloured.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
