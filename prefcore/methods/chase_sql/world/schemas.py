"""The 24 embedded databases: their tables, and what people call them. A database starts with @, a table is a line (and
its indented rest).

    table "what people say": column "what people say" kind; column kind; > parent

Kinds: person, place, title, year, a..b (whole numbers), a.b..c.d (two decimals), a list of values with |. A phrase that
is left out is the column's name in words. Every table gets a primary key <table>_id, every > parent a foreign key.
"""

import re
from typing import NamedTuple

WORLD = """
@ clinic
doctor "physician": full_name "name" person;
    field "specialty" cardiology|neurology|pediatrics|oncology|dermatology|urology;
    yrs_exp "years of experience" 1..40; city "home town" place
patient: full_name "name" person; blood_type A positive|B negative|zero positive|AB negative;
    birth_yr "year of birth" 1930..2015; insurer "insurance company" North Health|Blue Shield|City Care|Union Mutual;
    > doctor
visit "appointment": reason checkup|vaccination|chest pain|follow up|lab results; fee "price" 20..400;
    visit_yr "year" year; > patient
@ library
branch: label "name" title; district "part of town" old town|harbour side|west end|university quarter;
    opened "opening year" year; seats "number of seats" 20..300
book: title; genre crime fiction|romance|travel guide|popular science|childrens book; pages "page count" 80..900;
    lang "language" English|Spanish|Norwegian|Japanese; > branch
loan "borrowing": borrower "reader" person; days_out "duration in days" 1..90; fine "penalty" 0.0..25.0; > book
@ airline
airport: city "location" place; country Canada|New Zealand|South Korea|Portugal|Chile;
    runways "number of runways" 1..6; elev_m "elevation" 0..2500
aircraft "plane": model Falcon Seven|Heron Two|Condor Max|Swift Cargo; seats "capacity" 40..420;
    built_yr "year of construction" year; > airport
flight: carrier "operator" Polar Air|Blue Wings|Trans Pacific|Sun Express; delay_min "delay" 0..240;
    fare "ticket price" 40..900; > aircraft
@ bakery
shop "store": nm "name" title; quarter "neighbourhood" market square|station road|upper hill|river bank;
    staff_cnt "number of employees" 2..40; rent "monthly rent" 400..5000
product "baked good": nm "name" title; kind "type" sourdough bread|fruit cake|butter cookie|salted pretzel;
    price 1.0..40.0; kcal "calories" 90..700; > shop
sale: buyer "customer" person; qty "quantity" 1..60; pay "payment method" credit card|cash money|gift voucher;
    > product
@ football
club "team": nm "name" title; city "home city" place; founded "founding year" 1870..2005; budget 1..300
player: full_name "name" person; pos "position" goalkeeper|left back|centre forward|midfielder;
    goals "number of goals" 0..45; wage "salary" 10..600; > club
injury: kind "type" knee strain|broken ankle|concussion|muscle tear; days_lost "length in days" 2..300;
    severity minor|moderate|very severe; > player
@ university
department "faculty": nm "name" computer science|modern history|marine biology|civil engineering|philosophy|statistics;
    building main hall|science wing|garden house; budget 50..900; head_name "head" person
course: title; level introductory|intermediate|advanced seminar; credits "credit points" 2..12;
    term "semester" autumn|spring|summer school; > department
enrolment "registration": student person; grade "mark" 40..100; yr "year" year; > course
@ museum
museum: nm "name" title; city "town" place; entry_fee "admission price" 0..40; opened "opening year" 1820..2015
artwork "piece of art": title; style "art movement" impressionism|abstract art|pop art|baroque|realism;
    made_yr "year of creation" 1600..2020; worth "value" 5..900; > museum
restoration: conservator "restorer" person; cost 1..200; method laser cleaning|hand retouching|new canvas; > artwork
@ hotel
hotel: nm "name" title; town "place" place; stars "star rating" 1..5; pool "swimming pool" indoor pool|roof pool|none
room: view_to "view" sea view|garden view|inner court|mountain view; rate "nightly rate" 40..600;
    beds "number of beds" 1..5; > hotel
booking "reservation": guest person; nights "number of nights" 1..21;
    channel "booking channel" travel agency|phone call|web site; > room
@ farm
farm: nm "name" title; region northern plain|southern valley|coastal strip|high plateau; hectares "area" 5..800;
    owner person
field: crop winter wheat|sugar beet|sweet corn|barley|sunflower; soil "soil type" sandy loam|heavy clay|black earth;
    acres "size" 1..90; > farm
harvest: yr "year" year; tons "yield" 1..500; quality_cls "grade" first class|second class|animal feed; > field
@ shipping
port "harbour": nm "name" place; country Netherlands|Singapore|South Africa|Brazil|Greece; depth_m "depth" 6..30;
    cranes "number of cranes" 1..60
ship "vessel": nm "name" title; flag "flag state" Panama|Liberia|Marshall Islands|Malta; tonnage 5..400;
    built "year of construction" year; > port
cargo "shipment": goods frozen fish|steel coils|used cars|coffee beans|timber; weight_t "weight" 1..900;
    value_k "value" 5..2000; > ship
@ studio
director "film maker": full_name "name" person; country Ireland|India|Mexico|Poland|Senegal;
    awards "number of awards" 0..25; debut "debut year" 1960..2018
film "movie": title; genre dark comedy|science fiction|documentary|costume drama|thriller;
    runtime "length in minutes" 60..220; gross "box office" 1..900; > director
review: critic "reviewer" person; score "rating" 1..100; outlet "magazine" Screen Daily|Film Monthly|Evening Post;
    > film
@ realty
agent "broker": full_name "name" person; office_city "office location" place; comm_pct "commission" 1..9;
    hired_yr "hiring year" year
house "home": style "building style" log cabin|town house|bungalow|loft apartment;
    bedrooms "number of bedrooms" 1..8; ask_price "asking price" 60..2500; area_m2 "floor area" 30..600; > agent
viewing: visitor "prospective buyer" person; offer "bid" 50..2400;
    mood "impression" very positive|undecided|negative; > house
@ gym
trainer "coach": full_name "name" person; skill "discipline" weight lifting|yoga flow|boxing|spinning;
    hr_rate "hourly rate" 15..150; yrs "years of service" 1..30
member: full_name "name" person; plan "membership plan" basic plan|gold plan|student plan|family plan; age 16..80;
    joined "joining year" year; > trainer
session "workout": minutes_long "duration" 15..150; burned "calories burned" 50..1500;
    place_in "location" main floor|pool hall|outdoor track; > member
@ zoo
enclosure "habitat": nm "name" title; climate tropical rain|dry desert|cold water|temperate forest;
    area "size" 20..900; keeper "zoo keeper" person
animal: nickname "name" title; species snow leopard|river otter|grey wolf|red panda|king penguin;
    weight_kg "weight" 1..900; born "birth year" year; > enclosure
feeding "meal": food fresh fish|raw meat|bamboo leaves|mixed fruit; grams "portion" 50..9000; hr "hour of day" 6..20;
    > animal
@ bank
office "branch": city "location" place; kind "type" head office|drive in|city branch;
    staff "number of employees" 3..200; rent_k "rent" 5..90
account: holder "account holder" person;
    type "account type" savings account|checking account|joint account|youth account; balance -20..900;
    opened_yr "opening year" year; > office
transfer "payment": amount 1..990; purpose monthly rent|salary payment|online shopping|tax refund; fee 0.0..9.0;
    > account
@ restaurant
restaurant: nm "name" title; cuisine north indian|french bistro|sushi bar|vegan kitchen|steak house;
    town "city" place; tables_cnt "number of tables" 4..60
dish: nm "name" title; course_type "course" first course|main course|dessert plate; price 4.0..80.0;
    spicy "spice level" 0..5; > restaurant
rating "review": diner "guest" person; points "score" 1..20; lang "language" Italian|German|Korean; > dish
@ telecom
region: nm "name" lake district|metro area|border counties|islands; towers "number of masts" 5..400; manager person;
    pop_k "population" 10..900
customer "subscriber": full_name "name" person;
    tariff "price plan" pay as you go|flat rate|business line|senior saver; since_yr "contract year" year;
    data_gb "data volume" 1..200; > region
complaint: topic "subject" slow internet|wrong invoice|dropped calls|rude support; wait_min "waiting time" 1..120;
    outcome "result" solved at once|sent technician|still open; > customer
@ publisher
author "writer": full_name "name" person; nation "home country" Iceland|Nigeria|Argentina|Vietnam;
    prizes "number of prizes" 0..12; born "birth year" 1930..1995
novel "book": title; series "collection" pocket library|night shift|world voices|first steps;
    copies_k "copies sold" 1..900; pub_yr "publication year" year; > author
translation: translator person; target_lang "language" Dutch|Hindi|Swedish|Arabic; fee_k "fee" 1..60; > novel
@ dealer
garage "dealership": nm "name" title; city "location" place; area_m2 "size" 100..9000;
    brand "main brand" Silver Arrow|Nova Motors|Atlas Trucks
car "vehicle": model City Runner|Grand Tourer|Mountain Goat|Family Van; km_k "mileage" 0..300;
    price_k "price" 2..120; fuel "engine type" diesel engine|electric drive|petrol engine|hybrid drive; > garage
repair: mechanic person; hrs_work "working hours" 1..40;
    cause "fault" flat battery|worn brakes|oil leak|broken light; > car
@ festival
stage "venue": nm "name" title; capacity "number of places" 100..9000;
    ground "surface" grass field|concrete floor|sand beach; sponsor "main sponsor" Cola King|City Radio|Green Energy
band "music group": nm "name" title; genre indie rock|free jazz|hip hop|folk punk; fee_k "fee" 1..500;
    formed "founding year" year; > stage
song "track": title; secs "length in seconds" 90..600; mood "atmosphere" very loud|slow ballad|party anthem; > band
@ mining
mine "pit": nm "name" title; mineral copper ore|rock salt|hard coal|raw gold|lithium;
    depth "depth in metres" 50..3000; state "region" place
worker "miner": full_name "name" person; job "occupation" drill operator|blaster|safety officer|truck driver;
    age 18..66; pay "wage" 20..150; > mine
accident: kind "type" gas leak|roof fall|machine fire|slip; days_off "lost days" 0..200; yr "year" year; > worker
@ court
judge: full_name "name" person; chamber "court division" civil chamber|family court|criminal bench|tax court;
    appointed "year of appointment" year; cases_won "confirmed rulings" 5..400
trial "lawsuit": charge "accusation" petty theft|tax fraud|breach of contract|libel;
    days_long "duration in days" 1..200; fine_k "fine" 0..900; plaintiff "claimant" person; > judge
witness: full_name "name" person; side defence side|prosecution side|expert opinion;
    hours_heard "hours of testimony" 1..30; > trial
@ theatre
company "ensemble": nm "name" title; home_city "home town" place; founded "founding year" 1880..2015;
    subsidy "public funding" 0..700
play "production": title; kind "type" tragic opera|puppet show|musical comedy|modern dance; actors "cast size" 1..60;
    premiere_yr "opening year" year; > company
show "performance": tickets "tickets sold" 10..1200; weekday Monday evening|Friday night|Sunday matinee;
    price "ticket price" 8..150; > play
@ winery
estate "vineyard": nm "name" title; valley "region" upper valley|lake shore|stone hills|south slope;
    hectares "area" 1..90; owner "proprietor" person
wine: label "name" title; grape "grape variety" pinot noir|riesling|cabernet franc|muscat; vintage "year" year;
    alcohol "alcohol content" 9.0..16.0; > estate
tasting "wine test": taster "judge" person; points "score" 50..100;
    aroma "smell" ripe cherry|fresh citrus|old leather|wild herbs; > wine
"""


class Field(NamedTuple):
    """A column as it is written above: name, people's words for it, how its values are drawn."""

    name: str
    phrase: str
    kind: str


class Plan(NamedTuple):
    """A table as it is written above: name, people's words for it, columns, the tables that it refers to."""

    name: str
    phrase: str
    fields: tuple[Field, ...]
    parents: tuple[str, ...]


def read_plans(text: str = WORLD) -> dict[str, tuple[Plan, ...]]:
    """The tables of each database, by the database's name."""
    plans: dict[str, list[Plan]] = {}
    for line in filter(str.strip, re.sub(r";\n +", "; ", text).splitlines()):
        if line.startswith("@"):
            here = plans.setdefault(line[1:].strip(), [])
            continue
        head, _, rest = line.partition(":")
        parts = [part.strip() for part in rest.split(";") if part.strip()]
        parents = tuple(part[1:].strip() for part in parts if part.startswith(">"))
        fields = tuple(_field(part) for part in parts if not part.startswith(">"))
        here.append(Plan(*_named(head), fields, parents))
    return {name: tuple(tables) for name, tables in plans.items()}


def _field(part: str) -> Field:
    match = re.fullmatch(r'(\w+)\s*("[^"]+")?\s*(.*)', part)
    name, phrase, kind = match.groups()
    return Field(name, (phrase or "").strip('"') or _words(name), kind or name)


def _named(head: str) -> tuple[str, str]:
    name, _, phrase = head.strip().partition(" ")
    return name, phrase.strip(' "') or _words(name)


def _words(name: str) -> str:
    return name.replace("_", " ")
