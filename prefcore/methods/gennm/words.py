"""Words of C identifiers: which ones a run of letters may be cut into, and which of them mean the same.

Our own table, written by hand for this project; it is a help for scoring, never seen by a model.
"""

ABBREVIATIONS = """
addr address | alloc allocate allocation allocator | arg argument | arr array | attr attribute | auth authentication |
avail available | beg begin start first | bin binary | blk block | bool boolean flag | buf buffer bytes |
calc calculate | cap capacity | cb callback handler fn func function | cfg conf config configuration |
ch char character letter | chk check | clr clear | cmd command | cmp compare comparison | cnt count counter num number |
col column | cond condition | conn connection | ctl ctrl control | ctx context | cur curr current | db database |
dec decrement | def default | del delete remove | desc descriptor description | dest dst destination target |
dict dictionary | diff difference delta | dim dimension | dir directory | dist distance | doc document |
elem element item entry | enc encode encoder encoding | end last stop limit | env environment | eq equal |
err error errno | ev event | exp expected | ext extension | fd file descriptor handle | fmt format | freq frequency |
func fn function | gen generate generator generation | hash digest | hdr header | hi high upper | hist histogram |
idx index pos position i | impl implementation | inc increment | info information | init initial initialise initialize |
inp input | int integer | itr iter iterator cursor | key id identifier | kv pair | len length size | lev level |
lib library | lo low lower | loc location | lst list | lvl level | max maximum | mem memory | mid middle | min minimum |
mod module | msg message | mtx mutex lock | mul multiply | nb num number count n | neg negative | nxt next |
obj object | off offset | op operation operator | opt option | orig original | out output result | param parameter |
pkt packet | pos position offset | prev previous | priv private | proc process | prop property | proto protocol |
ptr pointer p | pub public | q queue | qty quantity | rand random | rc ret retval result status | rd read | rec record |
ref reference | reg register | rem remain remaining remainder left | rep reply repeat | req request |
res result response ret | resp response reply | rev reverse | rhs right | lhs left | rx receive recv | sec second |
sel select selected | sep separator | seq sequence | sig signal | sock socket | src source from | stat status state |
std standard | str string s text | sub substring | sum total | sym symbol | sync synchronous | sz size length |
tbl table | tgt target | thr thread | tmp temp temporary | tok token | tot total | tx transmit send | txt text |
typ type kind | uid user | upd update | usr user | util utility | val value v | var variable | vec vector |
ver version | wr write | win window
"""

PLAIN = """
access account active adapt add after age all and any append apply array as async at back backend bad base batch before
best bit bits body bool bottom bound box branch break bucket build busy by byte cache call can case chain
change channel child children chunk class clean clock close code color compress compressed connect const content copy
core cost create cut data date day days dead debug deep depth device digit direct disk distance do done dot double down
draw driver drop duration each edge empty enable equal even exact exit fail fast field file fill filter final find fix
fixed flags float flush for force found frame free fresh full get global go good grow guard half handle has head heap
height here high history hit hold host hour huff huffman if image in inline insert inside is join jump just keep keys
kind large layout leaf left less level line link literal live load local log long loop low lower main make many map mark
mask match max merge metablock method mode more move name names near need new next nibble no node non none norm not note
now null odd of old on once one only open or order other over owner pad page pair parent parse part pass path pattern
peer pending pick pipe pixel place point pool port post power prefix prime print priority push put quality query queue
quick quote range rank rate raw ready real recent red redo region rest result return ring root rotate row rows rule run
safe same save scale scan scope search seed seek segment self send sent sequence server set shift short show side sign
signed simple single size skip slot small sort space special speed split stack stage start state static step stop
storage store stream style suffix sum swap switch symbol table tag tail take task term test then this thread ticks time
timeout timer timestamp to token top trace track tree trigger trim true try two type under union unique unit unsigned
until up update upper url use used user value vertical view visit wait walk watch weight when where which while width
window with word words work worker wrap write written yes zero
"""

ROWS = tuple(frozenset(row.split()) for row in ABBREVIATIONS.replace("\n", " ").split("|"))
SAME: dict[str, frozenset[int]] = {}
for _number, _row in enumerate(ROWS):
    for _word in _row:
        SAME[_word] = SAME.get(_word, frozenset()) | {_number}
KNOWN = frozenset(word for word in (*PLAIN.split(), *SAME) if len(word) > 1)
