"""What kind of scene a photo shows, told from its path alone: from the names that the known sets give their folders.

Groups are coarse, so that each has enough photos to measure. What follows a colon in one may be dropped.
"""

import os
import re
import string
import tempfile
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from colorlib import data, downloads

# WordNet's ids are sorted by field, so that ImageNet's 1,000 classes fall into ranges. Each is given by the first and
# the last of its classes; how many it has follows. The word decides: hay and a menu are food, a bubble is scenery.
_WORDNET = (
    (2085620, 2113978, "animals: dogs"),  # 118
    (1440764, 2655020, "animals: other"),  # 280
    (2666196, 4613696, "things"),  # 518, buildings and rooms among them
    (6359193, 7248320, "print and signs"),  # 6
    (7565083, 7932039, "food"),  # 48
    (9193705, 9472597, "scenery"),  # 11
    (9835506, 10565667, "people"),  # 3
    (11879895, 13133613, "plants and fungi"),  # 15
    (15075141, 15075141, "things"),  # toilet tissue
)
_ID = re.compile(r"(?:^|[/_])n(\d{8})(?=[/_.]|$)")
# Places365's classes, by the first level of its authors' scene hierarchy. IO_places365.txt says the same of indoors and
# outdoors, but for archaelogical_excavation (spelt so) and swimming_hole, which it has indoors. What the hierarchy has
# on both sides is indoor here. It calls 31 classes both natural and man-made. Natural here are the 24 that it also puts
# under water, mountains or fields, and not the 7 that it puts under man-made elements alone: this choice is ours.
_PLACES_GROUPS = {
    "indoor": """
    airplane_cabin airport_terminal alcove amusement_arcade aquarium arcade archive arena/hockey arena/performance
    arena/rodeo art_gallery art_school art_studio artists_loft assembly_line atrium/public attic auditorium auto_factory
    auto_showroom bakery/shop ball_pit ballroom bank_vault banquet_hall bar basement basketball_court/indoor bathroom
    bazaar/indoor beauty_salon bedchamber bedroom beer_hall berth biology_laboratory bookstore booth/indoor
    bow_window/indoor bowling_alley boxing_ring burial_chamber bus_interior bus_station/indoor butchers_shop cafeteria
    candy_store car_interior catacomb chemistry_lab childs_room church/indoor classroom clean_room closet clothing_store
    cockpit coffee_shop computer_room conference_center conference_room corridor delicatessen department_store
    dining_hall dining_room discotheque dorm_room dressing_room drugstore elevator/door elevator_lobby elevator_shaft
    engine_room entrance_hall escalator/indoor fabric_store fastfood_restaurant flea_market/indoor florist_shop/indoor
    food_court galley garage/indoor general_store/indoor gift_shop greenhouse/indoor gymnasium/indoor hangar/indoor
    hardware_store home_office home_theater hospital_room hotel_room ice_cream_parlor ice_skating_rink/indoor
    jacuzzi/indoor jail_cell jewelry_shop kindergarden_classroom kitchen laundromat lecture_room legislative_chamber
    library/indoor living_room lobby locker_room market/indoor martial_arts_gym mezzanine movie_theater/indoor
    museum/indoor music_studio natural_history_museum nursery nursing_home office office_cubicles operating_room
    orchestra_pit pantry parking_garage/indoor pet_shop pharmacy physics_laboratory pizzeria playroom pub/indoor
    reception recreation_room repair_shop restaurant restaurant_kitchen sauna science_museum server_room shoe_shop
    shopping_mall/indoor shower stable stage/indoor staircase storage_room subway_station/platform supermarket sushi_bar
    swimming_pool/indoor television_room television_studio throne_room ticket_booth toyshop train_interior
    train_station/platform utility_room veterinarians_office waiting_room wet_bar youth_hostel""",
    "outdoor, natural": """
    badlands bamboo_forest barn beach boardwalk boathouse botanical_garden butte canal/natural canyon cliff coast
    corn_field corral creek crevasse dam desert/sand desert/vegetation field/cultivated field/wild fishpond
    forest/broadleaf forest_path forest_road formal_garden glacier golf_course grotto hayfield hot_spring ice_floe
    ice_shelf iceberg igloo islet lagoon lake/natural marsh mountain mountain_snowy ocean orchard park pasture
    picnic_area playground pond raft rainforest rice_paddy river rock_arch ski_slope sky snowfield swamp swimming_hole
    topiary_garden tree_farm tree_house tundra underwater/ocean_deep valley vegetable_garden vineyard volcano waterfall
    watering_hole wave wheat_field wind_farm yard""",
    "outdoor, built": """
    airfield alley amphitheater amusement_park apartment_building/outdoor aqueduct arch archaelogical_excavation
    army_base athletic_field/outdoor balcony/exterior balcony/interior barndoor baseball_field bazaar/outdoor
    beach_house beer_garden boat_deck bridge building_facade bullring cabin/outdoor campsite campus canal/urban
    carrousel castle cemetery chalet church/outdoor construction_site cottage courthouse courtyard crosswalk desert_road
    diner/outdoor doorway/outdoor downtown driveway embassy excavation farm field_road fire_escape fire_station
    football_field fountain garage/outdoor gas_station gazebo/exterior general_store/outdoor greenhouse/outdoor
    hangar/outdoor harbor heliport highway hospital hotel/outdoor house hunting_lodge/outdoor ice_skating_rink/outdoor
    industrial_area inn/outdoor japanese_garden junkyard kasbah kennel/outdoor landfill landing_deck lawn
    library/outdoor lighthouse loading_dock lock_chamber mansion manufactured_home market/outdoor mausoleum medina
    moat/water mosque/outdoor motel mountain_path museum/outdoor oast_house office_building oilrig pagoda palace
    parking_garage/outdoor parking_lot patio pavilion phone_booth pier plaza porch promenade racecourse raceway
    railroad_track residential_neighborhood restaurant_patio roof_garden rope_bridge ruin runway sandbox schoolhouse
    shed shopfront ski_resort skyscraper slum soccer_field stadium/baseball stadium/football stadium/soccer
    stage/outdoor street swimming_pool/outdoor synagogue/outdoor temple/asia tower trench viaduct village
    volleyball_court/outdoor water_park water_tower windmill zen_garden""",
}

# MIT Indoor 67, spelt as its folders are, in the five groups of its paper (Quattoni and Torralba 2009). They were taken
# from public code that follows it, not from the paper itself; that auditorium is public is the least certain.
_MIT_GROUPS = {
    "indoor: store": """
    bakery bookstore clothingstore deli florist grocerystore jewelleryshop laundromat mall shoeshop toystore
    videostore""",
    "indoor: home": """
    bathroom bedroom children_room closet corridor dining_room garage kitchen livingroom lobby nursery pantry stairscase
    winecellar""",
    "indoor: public": """
    airport_inside auditorium church_inside cloister elevator inside_bus inside_subway library locker_room museum
    poolinside prisoncell subway trainstation waitingroom""",
    "indoor: leisure": """
    bar bowling buffet casino concert_hall fastfood_restaurant gameroom gym hairsalon movietheater restaurant""",
    "indoor: work": """
    artstudio classroom computerroom dentaloffice greenhouse hospitalroom kindergarden laboratorywet meeting_room office
    operating_room restaurant_kitchen studiomusic tv_studio warehouse""",
}

# Folders that say nothing of what is in them; the letters are those of `a/airfield`.
_CONTAINERS = {"", *string.ascii_lowercase} | set(
    "all color colour data dataset datasets image images img imgs jpg large photo photos pictures png "
    "raw resize resized set small test testing testset train training trainset val valid validation".split()
)

_MARKERS = ("Images", "indoorCVPR_09", "img_align_celeba")  # folders that tell of which set the photos below are

_LISTS = (
    downloads.File("categories_places365.txt", checksum="md5:06c963b85866bd0649f97cb43dd16673"),
    downloads.File("places365_val.txt", checksum="md5:e9f2fd57bfd9d07630173f4e8708e4b1"),
)
_ARCHIVE = downloads.File(
    "filelist_places365-standard.tar",
    ("http://data.csail.mit.edu/places/places365/filelist_places365-standard.tar",),
    checksum="md5:35a0585fee1fa656440f3ab298f8479c",
)


def _key(folder):
    return re.sub(r"[ /_-]+", "_", folder.lower())


def _table(groups):
    """Groups of classes -> the group by the key of a class's folder."""
    return {_key(name): group for group, classes in groups.items() for name in classes.split()}


_PLACES, _MIT = _table(_PLACES_GROUPS), _table(_MIT_GROUPS)


def scene_of(path):
    """The group of scenes that a photo belongs to, by the first of these that applies:

    1. a WordNet id in the path, as ImageNet has it: a folder, or a part of the file's name;
    2. a folder of MIT Indoor 67 below one named Images or indoorCVPR_09;
    3. a folder of Places365, or two: church/outdoor; also church_outdoor or church-outdoor;
    4. a folder of MIT Indoor 67 anywhere;
    5. CelebA's folder img_align_celeba: "faces";
    6. the first folder that is not a mere container, such as train, images or data: its name is the group;
    7. the file's name up to a number at its end: cat for cat_000.png.

    Args:
        path: the photo's path, below the folder of its set; with slashes of either kind.

    Returns:
        The group, such as "outdoor, built" for a photo in church/outdoor; "" if it is not known.
    """
    path = str(path).replace("\\", "/")
    for number in _ID.findall(path):
        for first, last, group in _WORDNET:
            if first <= int(number) <= last:
                return group
    folders = path.split("/")[:-1]
    keys = [_key(folder) for folder in folders]
    pairs = [f"{above}_{below}" for above, below in pairwise(keys)]
    top = next((i for i, folder in enumerate(folders) if folder in _MARKERS[:2]), len(folders))
    for table, known in ((_MIT, keys[top:]), (_PLACES, keys + pairs), (_MIT, keys)):
        for key in reversed(known):  # two folders say more than one, and the deepest says most
            if key in table:
                return table[key]
    if _MARKERS[2] in folders:
        return "faces"
    words = (set(re.split(r"[\W\d_]+", folder.lower())) for folder in folders)  # "train_256" is a container, too
    series = re.fullmatch(r"(.*[^\W\d_])[\W_]*\d+", path.rsplit("/", 1)[-1].rpartition(".")[0])
    told = series[1] if series else ""
    return next((folder for folder, of in zip(folders, words) if not of <= _CONTAINERS), told)


def of_files(files, classes=None):
    """The group of each of some files: a list of str, "" where nothing is known.

    Of prepared photos, the original's path counts, below the folder of its set. A folder that all are in tells nothing,
    unless nothing else does.

    Args:
        classes: bare file name -> class, written as a path, for files whose own path does not tell.
    """
    classes, paths = classes or {}, [_original(Path(file)) for file in files]
    above = Path(os.path.commonpath([path.parent for path in paths]))
    marker = [part for part in above.parts if part in _MARKERS][-1:]
    below = [path.relative_to(above) for path in paths]
    found = [scene_of(Path(*marker, classes.get(path.name, "").strip("/"), path)) for path in below]
    return found if any(found) else [scene_of(Path(above.name, path)) for path in below]


def _original(file):
    folder = next((parent for parent in file.parents if (parent / "manifest.csv").is_file()), None)
    return Path("/", _originals(folder)[file.relative_to(folder).as_posix()]) if folder else file


@lru_cache(maxsize=4)
def _originals(folder):
    manifest = data.Prepared(folder).manifest
    return dict(zip(manifest.file, manifest.source))


def places_val_classes(root, places=()):
    """The classes of Places365's validation photos, whose paths do not tell them: from the official lists.

    The lists are kept below `root`; the archive that they come in is deleted again.

    Args:
        root: folder below which data sets are kept.
        places: more folders in which the two lists or their archive may be.

    Returns:
        Bare file name -> class, such as "Places365_val_00000001.jpg" -> "/s/sky": what `of_files` takes as `classes`.

    Raises:
        ConnectionError: if the archive cannot be fetched; says why.
        OSError: if the disk is full.
    """
    folder, places = Path(root) / "downloads", [Path(root), *map(Path, places)]
    try:
        categories, photos = [downloads.fetch(file, folder, places) for file in _LISTS]
    except ConnectionError:  # not there yet: they have no address of their own
        archive = downloads.fetch(_ARCHIVE, folder, places)
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            downloads.unpack(archive, unpacked)
            for file in _LISTS:
                (Path(unpacked) / file.name).replace(folder / file.name)
        categories, photos = [downloads.fetch(file, folder) for file in _LISTS]
        if archive.parent == folder:  # elsewhere it was put by hand, and stays
            archive.unlink()
    names = {number: name for name, number in map(str.split, categories.read_text().splitlines())}
    return {file: names[number] for file, number in map(str.split, photos.read_text().splitlines())}
