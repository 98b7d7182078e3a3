# ruff: noqa: RUF001, E501 - look-alike characters are what some texts are about, and a sample stays on its line
"""A labelled set that measures detection: what people write, by what it is.

Nothing here comes from the detectors' own expressions. Values are written as people write them, from numbering plans,
registries and makers' documentation: telephone numbers of the ranges kept for drama and documentation, the networks of
RFC 5737 and RFC 3849, account numbers of the form that each country's registry entry gives, cards of published test
ranges. Check digits are computed here, by functions of this module alone.

One sample a line; what must be found stands between ⟦ and ⟧, ⏎ is a line end, `?` a check digit, and `{a36}` 36
characters out of a random-looking sequence (a letters and digits, h hexadecimal, w base64url, u capitals and digits,
l small letters and digits, d digits), so that no scanner of repositories takes this file for a leak.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass

from entity_negatives import NEGATIVES_TEXT

_PHONES = """
Hi, it's Priya from upstairs, ring me on ⟦07700 900461⟧ after six
the plumber said to try ⟦0113 496 0742⟧ or just turn up
Tel.: ⟦+44 (0)20 7946 0812⟧
our new landline: ⟦(0117) 496 0333⟧, same extension as before
⟦+1 (415) 555-0132⟧ - that's the night desk
text 4155550198 no wait it's ⟦4155550189⟧ sorry
If urgent: ⟦1-800-555-0199⟧.
dispatch can be reached at ⟦303.555.0147⟧ x22
Kontakt: Frau Weber, Tel. ⟦030 23125 417⟧
mobil ⟦0171-3920 051⟧
⟦+49 221 4710 233⟧ (Empfang)
Rappelez-moi au ⟦01 99 00 27 46⟧ avant midi
portable : ⟦06.39.98.41.07⟧
⟦+33 (0)6 39 98 22 63⟧ c'est mon perso
Ring gärna ⟦08-465 004 12⟧
nås på ⟦070-174 06 35⟧ dagtid
⟦+46 31 390 06 18⟧
Call our Sydney rep: ⟦(02) 5550 7715⟧
aussie mobile ⟦0491 570 156⟧ whatsapp only
Irish office ⟦+353 20 915 0142⟧
Mi teléfono es ⟦+34 910 55 01 27⟧, llámame
tlf ⟦91 055 01 31⟧ (pregunta por Nuria)
Il numero è ⟦+39 06 5550 1284⟧.
⟦03-5550-0142⟧ までお電話ください
電話番号は⟦０３−５５５０−０１８８⟧です
联系电话 ⟦010-5550 0176⟧
手机⟦139 0555 0142⟧
Mumbai: ⟦+91 22 5550 0147⟧
whats app no ⟦98555 50123⟧ pls
Fale no ⟦(21) 95550-0163⟧
Москва ⟦+7 495 555-01-28⟧
звоните ⟦8 (812) 555-01-47⟧
Tel ⟦+31 20 555 0137⟧
bel me op ⟦06 5550 0174⟧
my digits are⏎⟦555⏎0137⟧
⟦+1⏎202-555-0173⟧ wrapped by the mail program
{"name":"J","mobile":"⟦+12025550164⟧"}
phone;fax⏎⟦020 7946 0455⟧;020 7946 0456
number's ⟦two oh two 555 0171⟧
t: ⟦202 / 555 / 0126⟧
Emergency contact ⟦+27 (0)21 555 0148⟧
"""

_EMAILS = """
send the deck to ⟦priya.raman@example.com⟧ tonight
⟦info@xn--mller-kva.example⟧ bounced
MAIL: ⟦J.VAN.DEN.BERG@EXAMPLE.ORG⟧
cc ⟦lou_99+news@mail.eu.example.net⟧
Kontakt: ⟦straße@müller.example⟧
written as ⟦nora AT example DOT org⟧ on the poster
⟦bob (a) example.com⟧ (replace the a)
reach me: ⟦kai [at] uni-example [dot] edu⟧
⟦lena{at}example{dot}de⟧
e-mail me at ⟦wei at example dot com dot cn⟧
⟦first.last@example.com⟧<mailto:first.last@example.com>
⟦"ana maria"@example.pt⟧ is legal
user=⟦sam%40example.org⟧&reset=1
⟦tom@example⏎.com⟧ (broken by the scanner)
⟦maria.lopez@⏎  example.es⟧
> ⟦x.y.z@⏎> example.co.uk⟧ wrote:
an: ⟦k@example.io⟧;
⟦o'brien@example.ie⟧ signed
login ⟦dev@localhost.localdomain⟧
addr ⟦jane@[192.0.2.44]⟧
⟦иван@пример.рф⟧ ответил
请发到⟦lihua@example.cn⟧。
メール：⟦tanaka＠example．jp⟧
⟦ahmed@example.museum⟧ ok?
{"owner_email": "⟦ops-team@example.cloud⟧"}
git log: Author: L <⟦l.quist@example.dev⟧>
⟦paul @ example.com⟧, without the blanks
⟦ZOE@Example.Com⟧.
skype:⟦zoe.k@example.net⟧?call
email ⟦j\u200bane@example.com⟧ has a hidden character
write ⟦jane.d...@example.com⟧ hmm
"""

_IBANS = """
Please wire the deposit to ⟦GB?? NWBK 6016 1331 9268 19⟧
konto ⟦de??370400440532013000⟧ danke
IBAN: ⟦FR?? 2004 1010 0505 0001 3M02 606⟧
⟦NL??ABNA0417164300⟧ t.n.v. De Vries
⟦ES?? 2100 0418 4502 0005 1332⟧ (CaixaBank)
acct ⟦IE?? AIBK 9311 5212 3456 78⟧
⟦it?? x054 2811 1010 0000 0123 456⟧
⟦BE??-5390-0754-7034⟧
⟦CH?? 0076 2011 6238 5295 7⟧ is the club's
Überweisung an ⟦AT?? 1904 3002 3457 3201⟧
⟦PL?? 1090 1014 0000 0712 1981 2874⟧
número ⟦PT?? 0002 0123 1234 5678 9015 4⟧
⟦SE?? 5000 0000 0583 9825 7466⟧
⟦NO??.8601.1117.947⟧
⟦DK?? 0040 0440 1162 43⟧
⟦FI??12345600000785⟧
hesap ⟦TR?? 0006 1005 1978 6457 8413 26⟧
⟦SA?? 8000 0000 6080 1016 7519⟧
⟦AE??0331234567890123456⟧ dubai
⟦GR?? 0110 1250 0000 0001 2300 695⟧
⟦CZ?? 0800 0000 1920 0014 5399⟧
⟦RO?? AAAA 1B31 0075 9384 0000⟧
⟦LU?? 0019 4006 4475 0000⟧
⟦HU?? 1177 3016 1111 1018 0000 0000⟧
split: ⟦DE?? 3704 0044⏎0532 0130 00⟧
⟦G B ? ? N W B K 6 0 1 6 1 3 3 1 9 2 6 8 1 9⟧
⟦ＤＥ？？　３７０４　００４４　０５３２　０１３０　００⟧
{"iban":"⟦MT??MALT011000012345MTLCAST001S⟧"}
⟦BR??00360305000010009795493C1⟧
my iban is ⟦de?? 37 04 00 44 05 32 01 30 00⟧ thx
⟦UA?? 322313 0000026007233566001⟧
"""

_CARDS = """
it's ⟦4539 1488 0343 646?⟧, expires next May
pan=⟦555555555555444?⟧
amex ⟦3782 822463 1000?⟧ please
⟦3714-496353-9843?⟧
card no ⟦6011 1111 1111 111?⟧
⟦3530111333300 00?⟧
charge ⟦4000056655665 55?⟧
⟦5200 8282 8282 821?⟧ declined again
visa⏎⟦4012 8888⏎8888 188?⟧⏎thanks
⟦4.5.3.9.1.4.8.8.0.3.4.3.6.4.6.?⟧
⟦2223 0031 2200 322?⟧ new mastercard
maestro ⟦6759 6498 2643 845?⟧
⟦3056 9309 0259 0?⟧ diners
diners ⟦38520000 02323?⟧
UnionPay ⟦6200 0000 0000 000?⟧
⟦62000 0000000 0000 00?⟧
карта ⟦2200 1234 5678 901?⟧
⟦４５３９　１４８８　０３４３　６４６？⟧
number: ⟦4539–1488–0343–646?⟧
⟦4539_1488_0343_646?⟧.pdf
⟦4539148803436 46?⟧
the first half is ⟦4539 1488, then 0343 646?⟧
⟦4 5 3 9 1 4 8 8 0 3 4 3 6 4 6 ?⟧
CC:⟦4539/1488/0343/646?⟧
jcb ⟦3566 0020 2036 050?⟧
{"card":{"number":"⟦424242424242424?⟧","exp":"04/31"}}
⟦4242 4242 4242 424?⟧ 04/31 123
Karte ⟦4242.4242.4242.424?⟧
⟦4917 6100 0000 000?⟧ electron
⟦4929 1234  5678 901?⟧
"""

_SSNS = """
my social is ⟦078-05-1120⟧
SSN ⟦219 09 9999⟧
ssn:⟦219099999⟧
soc sec no. ⟦457-55-5462⟧
⟦536–22–8726⟧ is on the W-2
Applicant: J. Smith, ⟦212-88-4421⟧, born 1981
last job listed me as ⟦431.12.7788⟧
Social Security Number⏎⟦319-40-2275⟧
social security: ⟦319402275⟧
tax id ⟦319-40-2275⟧ (mine, not the firm's)
⟦５１５－３３－８８０１⟧
ss # ⟦515-33-8801⟧
SS#⟦515338801⟧
{"ssn":"⟦601-22-3340⟧"}
"SocialSecurityNumber": ⟦601223340⟧
the form wants ⟦601 - 22 - 3340⟧
⟦601-⏎22-3340⟧ broken line
i-9 says ⟦733-04-1190⟧
enrollee;dob;id⏎Doe;1977-03-02;⟦402-61-8893⟧
her ssn is four oh two, ⟦61 8893⟧
W-4 for ⟦402/61/8893⟧
employee ⟦402-618893⟧ ssn
Is ⟦650-12-7741⟧ still valid?
ssn = '⟦650127741⟧'
⟦650_12_7741⟧.tif
number de seguro social ⟦650-12-7741⟧
"""

_ADDRESSES = """
failed password for root from ⟦192.0.2.146⟧ port 4022
⟦203.0.113.9⟧ - - [12/Mar/2025:10:00:01] "GET /"
ssh admin@⟦198.51.100.23⟧
X-Forwarded-For: ⟦203.0.113.77⟧, 10.0.0.3
my ip is ⟦198.51.100.201⟧ i think
⟦10.12.0.5⟧ can't reach the printer
gw ⟦192.168.178.1⟧
ping ⟦192.0.2.1⟧: 64 bytes
⟦2001:db8::8a2e:370:7334⟧ up
AAAA ⟦2001:db8:0:42::1⟧
[⟦2001:db8::17⟧]:8443
⟦fe80::1ff:fe23:4567:890a⟧%eth0
⟦2001:DB8:A0B:12F0::1⟧/64
⟦::ffff:192.0.2.128⟧ mapped
ioc ⟦203[.]0[.]113[.]5⟧
ioc ⟦198.51.100[.]66⟧
hxxp://⟦198[.]51[.]100[.]9⟧/x
server⟦192.0.2.55⟧down
IP：⟦１９２．０．２．７７⟧
host=⟦192.0.2.200⟧;db=x
⟦192.0.2.10⟧-192.0.2.19
range ⟦198.51.100.0⟧/24 blocked
{"client_ip":"⟦203.0.113.250⟧"}
the camera at http://⟦192.0.2.31⟧:554
⟦192 . 0 . 2 . 18⟧ as printed on the label
peer ⟦2001:0db8:0000:0000:0000:ff00:0042:8329⟧
resolved to ⟦2001:db8::1:0:0:1⟧.
from ⟦172.16.254.1⟧ to the proxy
⟦203.0.⏎113.44⟧
⟦203-0-113-12⟧.rev.example.net
"""

_TOKENS = """
use ⟦ghp_{a36}⟧ for the clone
GITHUB ⟦github_pat_{a22}_{a59}⟧
action: ⟦ghs_{a36}⟧
AWS id ⟦AKIA{u16}⟧
temporary ⟦ASIA{u16}⟧ expires at noon
⟦sk-proj-{w64}⟧ stopped working
openai ⟦sk-{a48}⟧
claude ⟦sk-ant-api03-{w93}AA⟧
maps key ⟦AIza{w35}⟧
⟦ya29.{w68}⟧
slack bot ⟦xoxb-{d12}-{d13}-{a24}⟧
post to https://⟦hooks.slack.com/services/T{u8}/B{u8}/{a24}⟧
stripe ⟦sk_live_{a24}⟧
restricted ⟦rk_live_{a24}⟧
endpoint secret ⟦whsec_{a32}⟧
gitlab ⟦glpat-{w20}⟧
runner ⟦glrt-{w20}⟧
//registry.npmjs.org/:_authToken=⟦npm_{a36}⟧
pypi ⟦pypi-AgEIcHlwaS5vcmc{w70}⟧
hf login ⟦hf_{a34}⟧
mailer ⟦SG.{w22}.{w43}⟧
telegram ⟦{d10}:AA{w33}⟧
twilio ⟦SK{h32}⟧
mailgun ⟦key-{h32}⟧
digitalocean ⟦dop_v1_{h64}⟧
shopify ⟦shpat_{h32}⟧
linear ⟦lin_api_{a40}⟧
notion ⟦ntn_{a46}⟧
databricks ⟦dapi{h32}⟧
vault ⟦hvs.{w90}⟧
docker hub ⟦dckr_pat_{w27}⟧
square ⟦sq0atp-{w22}⟧
grafana ⟦glsa_{a32}_{h8}⟧
postman ⟦PMAK-{h24}-{h34}⟧
supabase ⟦sbp_{h40}⟧
discord ⟦MTk4NjIyNDgzNDcxOTI1MjQ4.{w6}.{w27}⟧
age ⟦AGE-SECRET-KEY-1{u58}⟧
newrelic ⟦NRAK-{u27}⟧
airtable ⟦pat{a14}.{h64}⟧
tailscale ⟦tskey-auth-{a12}-{a32}⟧
Authorization: Bearer ⟦{w43}⟧
authorization: Basic ⟦YWRtaW46czNjcjN0IQ==⟧
jwt ⟦eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.{w43}⟧
ghp line break ⟦ghp_{a18}⏎{a18}⟧
azure AccountKey=⟦{a86}==⟧;EndpointSuffix
-----BEGIN RSA PRIVATE {k}-----⏎⟦MIIEow{a58}⟧⏎-----END RSA PRIVATE {k}-----
"""

_OTHER_TOKENS = """
groq ⟦gsk_{a52}⟧
perplexity ⟦pplx-{a48}⟧
openrouter ⟦sk-or-v1-{h64}⟧
nvidia ⟦nvapi-{w64}⟧
langsmith ⟦lsv2_pt_{h32}_{h10}⟧
pinecone ⟦pcsk_{a6}_{a62}⟧
netlify ⟦nfp_{a36}⟧
atlassian ⟦ATATT3xFfGF0{w171}={u8}⟧
bitbucket ⟦ATBB{a24}{u8}⟧
hubspot ⟦pat-eu1-{h8}-{h4}-{h4}-{h4}-{h12}⟧
buildkite ⟦bkua_{h40}⟧
planetscale ⟦pscale_tkn_{w43}⟧
rubygems ⟦rubygems_{h48}⟧
dropbox ⟦sl.B{w130}⟧
contentful ⟦CFPAT-{w43}⟧
cerebras ⟦csk-{l48}⟧
deepgram {"key": "⟦{h40}⟧"}
xai ⟦xai-{a80}⟧
sourcegraph ⟦sgp_{h16}_{h40}⟧
mapbox ⟦sk.eyJ1Ijoi{a52}.{w22}⟧
wandb ⟦wandb_v1_{a64}⟧
clojars ⟦CLOJARS_{h60}⟧
nuget ⟦oy2{l43}⟧
make ⟦{h8}-{h4}-{h4}-{h4}-{h12}⟧ is my api token
prefect ⟦pnu_{a36}⟧
"""

_PASSWORDS = """
the wifi is ⟦Bluebird77!⟧ (capital B), password on the router
password: ⟦correcthorsebattery⟧
pw ⟦Tr0ub4dor&3⟧
my pin is ⟦8042⟧
login admin / ⟦Sup3r$ecret⟧
user: root pass: ⟦toor4ever⟧
PASSWD=⟦k9!mn-Qx⟧
DB_PASSWORD: "⟦p@ss w0rd⟧"
mot de passe : ⟦Soleil2024!⟧
Passwort lautet ⟦Fr3iheit#9⟧
contraseña: ⟦Gato-Negro-7⟧
密码是⟦Qwer!2345⟧
пароль: ⟦Zima2024!⟧
postgres://app:⟦hunter2x⟧@db/app
mysql -u root -p⟦S3cretPw⟧ shop
curl -u bot:⟦9fK2mPq7⟧ https://x.example
amqp://guest:⟦gu3st-pw⟧@mq:5672
secret_key_base = ⟦{h64}⟧
client_secret=⟦{a32}⟧&grant_type=x
api-key: ⟦{h32}⟧
"apiKey": "⟦{a40}⟧"
X-Api-Key: ⟦{a24}⟧
export TOKEN=⟦{a30}⟧
aws_secret_access_key=⟦{a40}⟧
<password>⟦Winter2025?⟧</password>
--token ⟦{h40}⟧
the passphrase is "⟦seven purple otters dance⟧"
temp password -> ⟦Xk7-pQ2-mm9⟧
passcode ⟦739114⟧
"""

_PEOPLE = """
Please book the room for ⟦Priya Raman⟧ on Friday.
⟦José Ángel Muñoz⟧ has not paid his invoice.
A letter from ⟦Siobhán Ní Bhriain⟧ arrived.
I spoke with ⟦Wojciech Szczęsny⟧ about the lease.
⟦Nguyễn Thị Minh Khai⟧ will join the call.
My doctor is Dr. ⟦Anneliese Köhler⟧.
Dear Mr ⟦Okonkwo⟧, thank you for your message.
⟦Þórdís Björnsdóttir⟧ signed the contract yesterday.
The complaint was filed by ⟦Mary-Jane O'Sullivan⟧.
Ask ⟦Luca⟧ if he can bring the drill.
⟦Dmitri Ivanovich Sokolov⟧ lost his passport.
can you write a birthday card for my sister ⟦emily⟧
hi, this is ⟦tom baker⟧ from number 12
remind ⟦john smith⟧ to call me back
PATIENT: ⟦GARCIA, MARIA TERESA⟧
⟦Smith, John A.⟧; DOB 1970-02-03
Kind regards,⏎⟦Hannah Lindqvist⟧
From: ⟦Kwame Nkrumah Mensah⟧⏎Subject: rent
⟦Jean-Baptiste Lefèvre⟧ vient demain.
Frau ⟦Schröder⟧ hat gestern angerufen.
⟦Giuseppe Verdi Bianchi⟧ abita al terzo piano.
La señora ⟦Carmen Ruiz⟧ pidió una cita.
⟦田中太郎⟧さんに連絡してください
请通知⟦王小明⟧明天开会
⟦Иван Петров⟧ не пришёл.
الموظف ⟦محمد العلي⟧ غائب اليوم
⟦Aleksandra⏎Nowak⟧ moved out in May
employee: ⟦Fatima Zahra El Idrissi⟧, badge 4411
⟦Lee Min-ho⟧ was late twice.
My boss ⟦Rajesh⟧ keeps changing the deadline.
Write a reference for ⟦Chloe Mbeki⟧, who taught maths.
{"customer": "⟦Anders Holm⟧", "plan": "basic"}
@sarahc: ⟦Sarah Connor⟧ wrote that
The nurse told Mrs. ⟦Van der Merwe⟧ to rest.
"""

_PLACES = """
We moved to ⟦Lisbon⟧ last year.
My parents live in ⟦Kraków⟧.
He works in ⟦São Paulo⟧ and travels a lot.
deliver to ⟦221B Baker Street, London⟧
Our office is at ⟦Friedrichstraße 43, 10117 Berlin⟧.
⟦12 rue de la Paix, 75002 Paris⟧
She grew up in rural ⟦Saskatchewan⟧.
the flat is near ⟦Hyde Park⟧
i was born in ⟦nairobi⟧ and raised here
going to ⟦chicago⟧ next week, any tips?
The clinic in ⟦Reykjavík⟧ closed.
Shipment from ⟦Shenzhen⟧ is delayed.
I hitchhiked across ⟦Kyrgyzstan⟧.
⟦Springfield, IL 62704⟧
PO Box 118, ⟦Wagga Wagga NSW 2650⟧
My house stands on ⟦Elm Street⟧, third on the left.
Nous habitons à ⟦Saint-Étienne⟧.
Ich wohne in ⟦Düsseldorf⟧.
Vivo en ⟦Guadalajara⟧ desde 2010.
⟦東京都渋谷区⟧に住んでいます
我住在⟦上海市浦东新区⟧
Я живу в ⟦Новосибирске⟧.
The farm lies by ⟦Lake Victoria⟧.
ADDRESS: ⟦742 EVERGREEN TERRACE, SPRINGFIELD⟧
We met at a café in ⟦Trieste⟧ in June.
trip to ⟦New⏎Zealand⟧ was cancelled
{"city": "⟦Ouagadougou⟧"}
My landlord in ⟦Brooklyn⟧ raised the rent.
send it to ⟦Plot 14, Ikeja, Lagos⟧
Which bus goes to ⟦Tel Aviv⟧?
The ⟦Isle of Skye⟧ cottage is booked.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A text and what it holds."""

    text: str
    """The text to scan."""

    entity: str
    """What it holds, a name in `POSITIVES`; "" where it holds nothing."""

    start: int = 0
    """Where that begins, in characters of `text`."""

    end: int = 0
    """Where it ends, exclusive."""


def _luhn_digit(digits: str) -> str:
    """Give the digit that makes a card number complete: doubled from the right, digit sums, up to the next ten."""
    total = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
    total += sum(int(digit) for digit in digits[-2::-2])
    return str((10 - total) % 10)


def _iban_digits(country: str, account: str) -> str:
    """Give the two check digits of an account: 98 less the remainder by 97, letters counted from ten (ISO 13616)."""
    letters = string.digits + string.ascii_uppercase
    number = "".join(str(letters.index(character)) for character in (account + country + "00").upper())
    return f"{98 - int(number) % 97:02}"


_WIDE = str.maketrans("0123456789", "０１２３４５６７８９")


def _completed(entity: str, value: str) -> str:
    """Put check digits in the places of the question marks; a full-width mark gets a full-width digit."""
    if entity not in ("card", "iban") or not re.search("[?？]", value):
        return value
    plain = "".join(chr(ord(c) - 0xFEE0) if 0xFF01 <= ord(c) <= 0xFF5E else c for c in value)
    bare = "".join(character for character in plain if character.isalnum())
    digits = iter(_luhn_digit(re.sub(r"\D", "", bare)) if entity == "card" else _iban_digits(bare[:2], bare[2:]))

    def digit(mark: re.Match[str]) -> str:
        return next(digits) if mark[0] == "?" else next(digits).translate(_WIDE)

    return re.sub("[?？]", digit, value)


_ALPHABETS = {
    "a": string.ascii_letters + string.digits,
    "h": "0123456789abcdef",
    "w": string.ascii_letters + string.digits + "-_",
    "u": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "d": string.digits,
}


def _generated(line: str) -> str:
    """Fill the random-looking parts of a line, always with the same characters."""

    def part(match: re.Match[str]) -> str:
        alphabet, size = _ALPHABETS[match[1]], int(match[2])
        seed = hashlib.shake_256(f"{line}{match.start()}".encode()).digest(size)
        return "".join(alphabet[byte % len(alphabet)] for byte in seed)

    return re.sub(r"\{([ahwuld])(\d+)\}", part, line.replace("{k}", "KEY"))


def _sample(entity: str, line: str) -> Sample:
    text = _generated(line).replace("⏎", "\n")
    before, value, after = re.fullmatch(r"([^⟦]*)⟦([^⟦⟧]*)⟧(.*)", text, re.DOTALL).groups()
    value = _completed(entity, value)
    return Sample(before + value + re.sub("[⟦⟧]", "", after), entity, len(before), len(before) + len(value))


POSITIVES: dict[str, tuple[Sample, ...]] = {
    entity: tuple(_sample(entity, line) for line in lines.strip().splitlines())
    for entity, lines in {
        "email": _EMAILS,
        "phone": _PHONES,
        "iban": _IBANS,
        "card": _CARDS,
        "us_ssn": _SSNS,
        "ip_address": _ADDRESSES,
        "token": _TOKENS,
        "other_token": _OTHER_TOKENS,
        "password": _PASSWORDS,
        "person": _PEOPLE,
        "place": _PLACES,
    }.items()
}
"""Texts that hold something, by what they hold. What `SECRET` names is found by any kind of secret."""

SECRET = frozenset({"token", "other_token", "password"})
"""Entities that are secrets; `other_token` has those of makers whom no list of the detectors knew when it was written."""

NEGATIVES: tuple[Sample, ...] = tuple(
    Sample(line.replace("⏎", "\n"), "") for line in NEGATIVES_TEXT.strip().splitlines()
)
"""Texts that hold nothing, many of which look as if they did."""
