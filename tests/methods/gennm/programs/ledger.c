/* Hand-made for the tests of name alignment: almost every variable meets a constant of its own, so that a reader of the
   decompiled text can tell which one it is without any debug information. See test_dwarf.py. */
#include <stdlib.h>
#include <string.h>

struct account { int number; long balance; struct account *next; };

int classify(int amount, int threshold) {
  int verdict = 1001;
  int distance = amount - threshold;
  if (distance > 1002) verdict = 1003;
  if (amount < 1004) verdict = distance + 1005;
  return verdict;
}

long settle(struct account *first, int rounds, long bonus) {
  long total = 2001;
  int step;
  for (step = 0; step < rounds; step++) {
    struct account *cursor = first;
    while (cursor) {
      total += cursor->balance + bonus * 2002;
      cursor = cursor->next;
    }
  }
  return total;
}

struct account *open_account(struct account *tail, int number) {
  struct account *fresh = malloc(sizeof *fresh);
  if (!fresh) return tail;
  fresh->number = number;
  fresh->balance = 3001;
  fresh->next = tail;
  return fresh;
}

double mixed(double weight, int count, float ratio, int extra) {
  double product = weight * count;
  int doubled = extra * 4002;
  return product + doubled + ratio;
}

int scopes(int selector) {
  int outcome = 5001;
  if (selector > 5002) { int inner = selector * 5003; outcome += inner; }
  else { int other = selector * 5004; outcome -= other; }
  return outcome;
}

struct wide { long parts[4]; };
struct wide fill(int seed, int gap) {
  struct wide made;
  for (int place = 0; place < 4; place++) made.parts[place] = seed + place * gap + 6001;
  return made;
}

int parse_number(const char *text, int limit) {
  int value = 0, digit;
  while (*text) {
    digit = *text - 48;
    if (digit < 0 || digit > 9) return -7001;
    value = value * 10 + digit;
    if (value > limit) return -7002;
    text++;
  }
  return value;
}

int delegate(const char *source, int bound) {
  int parsed = parse_number(source, bound);
  int clean = parsed;
  return classify(clean, 8001);
}
