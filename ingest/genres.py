"""Names of the numbered genres of ID3v1, with Winamp's extension, and the texts of ID3v2 that refer to them.

Sources: id3.org (ID3v1, appendix A; ID3v2.3, TCON), Winamp 5.6 for the numbers from 80 on.
"""

from __future__ import annotations

import re

GENRES = tuple("""
Blues | Classic Rock | Country | Dance | Disco | Funk | Grunge | Hip-Hop | Jazz | Metal | New Age | Oldies | Other |
Pop | R&B | Rap | Reggae | Rock | Techno | Industrial | Alternative | Ska | Death Metal | Pranks | Soundtrack |
Euro-Techno | Ambient | Trip-Hop | Vocal | Jazz+Funk | Fusion | Trance | Classical | Instrumental | Acid | House |
Game | Sound Clip | Gospel | Noise | AlternRock | Bass | Soul | Punk | Space | Meditative | Instrumental Pop |
Instrumental Rock | Ethnic | Gothic | Darkwave | Techno-Industrial | Electronic | Pop-Folk | Eurodance | Dream |
Southern Rock | Comedy | Cult | Gangsta | Top 40 | Christian Rap | Pop/Funk | Jungle | Native American | Cabaret | New
Wave | Psychadelic | Rave | Showtunes | Trailer | Lo-Fi | Tribal | Acid Punk | Acid Jazz | Polka | Retro | Musical |
Rock & Roll | Hard Rock | Folk | Folk-Rock | National Folk | Swing | Fast Fusion | Bebob | Latin | Revival | Celtic |
Bluegrass | Avantgarde | Gothic Rock | Progressive Rock | Psychedelic Rock | Symphonic Rock | Slow Rock | Big Band |
Chorus | Easy listening | Acoustic | Humour | Speech | Chanson | Opera | Chamber Music | Sonata | Symphony | Booty
Bass | Primus | Porn Groove | Satire | Slow Jam | Club | Tango | Samba | Folklore | Ballad | Power Ballad | Rhythmic
Soul | Freestyle | Duet | Punk Rock | Drum Solo | A capella | Euro-House | Dance Hall | Goa | Drum & Bass | Club-House
| Hardcore Techno | Terror | Indie | BritPop | Afro-Punk | Polsk Punk | Beat | Christian Gangsta Rap | Heavy Metal |
Black Metal | Contemporary Christian | Christian Rock | Merengue | Salsa | Thrash Metal | Anime | Jpop | Synthpop |
Abstract | Art Rock | Baroque | Bhangra | Big Beat | Breakbeat | Chillout | Downtempo | Dub | EBM | Eclectic | Electro
| Electroclash | Emo | Experimental | Garage | Illbient | Industro-Goth | Jam Band | Krautrock | Leftfield | Lounge |
Math Rock | New Romantic | Nu-Breakz | Post-Punk | Post-Rock | Psytrance | Shoegaze | Space Rock | Trop Rock | World
Music | Neoclassical | Audiobook | Audio Theatre | Neue Deutsche Welle | Podcast | Indie Rock | G-Funk | Dubstep |
Garage Rock | Psybient
""".replace("\n", " ").strip().split(" | "))
REFERENCE = re.compile(r"\((\d{1,3})\)(.*)|(\d{1,3})")


def genre_name(text: str) -> str:
    """A genre as text: numbers of ID3v1 become names, and a name behind a number counts.

    >>> genre_name("(17)"), genre_name("17"), genre_name("(4)Eurodisco"), genre_name("Trip-Hop"), genre_name("(250)")
    ('Rock', 'Rock', 'Eurodisco', 'Trip-Hop', '')
    """
    match = REFERENCE.fullmatch(text.strip())
    if match is None:
        return text
    if name := (match[2] or "").strip():
        return name
    number = int(match[1] or match[3])
    return GENRES[number] if number < len(GENRES) else ""
