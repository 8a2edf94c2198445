"""Card numbers as callers say them and as they are typed, and what looks like one and is none."""

from __future__ import annotations

# The numbers are the card schemes' own examples, which no bank gives out. Each form stands in a sentence of its own.
FORMS = (
    # typed
    "4539148803436467",
    "4539 1488 0343 6467",
    "4539-1488-0343-6467",
    "4539.1488.0343.6467",
    "4539, 1488, 0343, 6467",
    "4539\n1488\n0343\n6467",
    "4539 14 88 0343 64 67",
    "4 5 3 9 1 4 8 8 0 3 4 3 6 4 6 7",
    "45-39-14-88-03-43-64-67",
    "4539—1488—0343—6467",
    "4539\u00a01488\u00a00343\u00a06467",
    "4539\u200b1488\u200b0343\u200b6467",
    "4539/1488/0343/6467",
    "4539_1488_0343_6467",
    "(4539) (1488) (0343) (6467)",
    "VISA4539148803436467",
    "４５３９ １４８８ ０３４３ ６４６７",  # full width
    "٤٥٣٩ ١٤٨٨ ٠٣٤٣ ٦٤٦٧",  # Arabic
    "४५३९ १४८८ ०३४३ ६४६७",  # Devanagari
    "4️⃣5️⃣3️⃣9️⃣ 1488 0343 6467",
    "378282246310005",  # fifteen digits
    "3782 822463 10005",
    "3056 930902 5904",  # fourteen
    "4222222222222",  # thirteen
    "6205500000000000004",  # nineteen
    "4539 1488 0343 6467 12/27 123",  # until when, and the code
    # said
    "four five three nine one four eight eight zero three four three six four six seven",
    "four five three nine, one four eight eight, oh three four three, six four six seven",
    "Four. Five. Three. Nine. One. Four. Eight. Eight. Zero. Three. Four. Three. Six. Four. Six. Seven.",
    "four five three nine one four double eight zero three four three six four six seven",
    "forty-five thirty-nine fourteen eighty-eight oh three forty-three sixty-four sixty-seven",
    "forty five, thirty nine, fourteen, eighty eight, zero three, forty three, sixty four, sixty seven",
    "four thousand five hundred thirty nine, fourteen hundred eighty eight, oh three forty three, sixty four hundred and sixty seven",
    "forty five hundred and thirty nine then one thousand four hundred eighty eight then nought three four three then 6467",
    "four five three nine uh one four eight eight um zero three four three and then six four six seven",
    "four five three nine dash one four eight eight dash zero three four three dash six four six seven",
    "4539 and then 1488 okay 0343 and the last four are 6467",
    "4539 fourteen eighty eight 0343 six four six seven",
    "5555 triple five five quadruple five double four double four",
    "vier fünf drei neun eins vier acht acht null drei vier drei sechs vier sechs sieben",
    "quatre cinq trois neuf un quatre huit huit zéro trois quatre trois six quatre six sept",
    "four fives, four fives, four fives, four fours",
    "cuatro cinco tres nueve uno cuatro ocho ocho cero tres cuatro tres seis cuatro seis siete",
)
# What must not be left of each form: its digits in a row, however they are parted.
HALVES = (
    ("4539 1488", "0343 6467"),
    ("4539148803", "436467"),
    ("My card number is 4539 1488", "0343 6467, thank you"),
    ("four five three nine one four eight eight", "zero three four three six four six seven"),
    ("it's four five three nine one four", "double eight zero three four three six four six seven and that is all"),
    ("forty-five thirty-nine fourteen eighty-eight", "oh three forty-three, sixty-four sixty-seven"),
    ("4539 1488 uh", "um, 0343 6467"),
    ("4539", "1488", "0343", "6467"),
    ("four five three nine", "fourteen eighty eight", "0343", "and the last four are six four six seven"),
)
INNOCENT = (
    "My order number is 4539148803436468.",  # the check fails
    "order 4539 1488 0343 6466",
    "order four five three nine one four eight eight zero three four three six four six eight",
    "one two three testing",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
    "ten twenty thirty forty fifty sixty seventy eighty ninety",
    "twenty nineteen eighteen seventeen sixteen fifteen fourteen thirteen twelve eleven ten nine eight seven six five four three two one",
    "In 2019, 2020, 2021 and 2022 it was better.",
    "It costs 4,999.00 or 5.499,00 euros.",
    "It costs $12.50, $13.99, $120.00 and $1,299.00.",
    "Call me at +1 415 555 0100.",
    "Call me at 415-555-0100, or at 415-555-0199.",
    "Call me at +49 1512 3456789.",
    "My number is five five five, oh one oh oh.",
    "plus four nine one five one two three four five six seven eight nine",
    "on 2026-11-29 at 01:05:23.120",
    "2026-03-01T14:47:03.120Z",
    "since 1795342807000",
    "version 4.1.11 of 2026.11",
    "192.168.100.200:8080 and 10.0.0.1",
    "call 3f4b1c2d-4111-1111-1111-111111111111",
    "CA4539a1488b0343c6467d4539e1488f0343a",
    "IBAN DE89 3704 0044 0532 0130 00",
    "tracking 9400111899223100001234",
    "the codes are 4539 for the door and 1488 for the gate",
    "a hundred and one thousand reasons",
    "Nineteen ninety nine was a good year, and so was two thousand and four.",
    "double trouble, triple jump",
    "I have two questions. One: how? Two: when?",
    "My PIN is not 4 5 3 9.",
    "room 12, floor 3, desk 45",
    "49.95, 49.95 and 49.95 make 149.85",
    "between 8 and 10, or 12 and 14, or 16 and 18",
    "50 % of 1,000,000 is 500,000",
    "oh oh oh, a, o, and so on",
    "zip 94103, state CA, unit 7",
    "half past four on the first of the third",
    "My case is 123456789012.",  # twelve digits
    "serial 00000000000000",
    "The meeting is at 9 30 in room 204.",
    "seat 12A, 12B, 12C, 14D",
)
