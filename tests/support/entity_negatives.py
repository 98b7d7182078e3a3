"""Texts that hold nothing of what detectors look for, one a line; some come near."""

# ruff: noqa: RUF001 - people write these characters

from __future__ import annotations

NEGATIVES_TEXT = """
Order 2025-00417-88 shipped with carrier code 1Z999AA10123456784.
ISBN 978-3-16-148410-0, third printing.
The meeting moved from 10:30 to 14:45 on 2025-03-18.
Total 1,204.50 plus 19% is 1,433.36.
build 20250318.1123 passed 4,212 tests in 93.4 s
commit 3f786850e387550fdab836ed7e6dc881de23001b
md5 9e107d9d372bb6826bd81d3542a419d6  archive.tar
uuid 123e4567-e89b-12d3-a456-426614174000
version 4.2.0.1337 fixes the crash
Chrome 124.0.6367.60 is affected
section 3.1.4.2 of the manual
python 3.11.7, numpy 2.1.0, torch 2.4.1
chapter 12.3.1.1 explains subnets; the mask is 255.255.255.0
listen on 0.0.0.0:8080 or 127.0.0.1
the ratio is 16:9 and the time 12:34:56
MAC 00:1A:2B:3C:4D:5E
see lines 100-200, 300-400 and 500-600
2 4 6 8 10 12 14 16 18 20 are even
1 1 2 3 5 8 13 21 34 55 89 144
0.1234567890123456789 is a float
3.141592653589793 and 2.718281828459045
x = 1234567890; y = 9876543210
serial no. SN-4471-0098-2231-7
invoice 4000-1234-5678-9010 is not a card
part 5500 0000 0000 0005 1 has one digit too many
tracking 9400 1000 0000 0000 0000 00
EAN 4006381333931 on the box
license plate ABC 1234
room 555, floor 12, desk 0134
score was 21-19, 18-21, 15-12
population 8,336,817 in 2020
the budget: 12 000 000 in 2024, 13 500 000 in 2025
dimension 1920x1080 at 60 Hz, 4096x2160 at 30
color #ff00aa and #123456
timestamp 1712345678901
epoch 1712345678
2025-03-18T10:11:12.345678Z
0 5 * * 1-5 /usr/bin/backup
chmod 0644 file; umask 022
mov eax, 0xdeadbeef
sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
GTIN 00012345600012
lat 52.520008, lon 13.404954
dose: 2 x 500 mg, 3 times daily, 10 days
flight at 06:45, gate 14, seat 22F
booking reference K7QX2M
WBC 6.4, RBC 4.71, HGB 14.2, PLT 251
question 7 of 12, 45 minutes left
add 200 g flour, 3 eggs, 100 ml milk
the train covers 312 km in 2 h 15 min
pages 1234-1240, vol. 56, no. 7
doi:10.1000/182 and arXiv:2401.01234
RFC 2616 section 14.9.1
CVE-2024-12345 and CWE-79
sk-learn style estimators are sk-compatible
the skeleton key opens every door
a token ring network passes one token
max_tokens=2048, tokenizer=bpe, token_type_ids
the secret of good bread is patience
my password manager asks for a master password
password must contain at least 8 characters, a digit and a symbol
Enter password:
password = getpass.getpass()
password: ********
api_key = os.getenv("OPENAI_API_KEY")
token: ${{ secrets.DEPLOY_TOKEN }}
Authorization: Bearer <token>
use Bearer tokens or Basic auth
postgres://user:password@host/db is the form of a URL
replace YOUR_API_KEY with your key
key: value pairs, one a line
public key cryptography uses two keys
the ghp_ prefix marks personal tokens
AKIA and ASIA begin access key ids
xoxb- means bot, xoxp- means user
a JWT has three parts separated by dots
eyJ is base64 for an opening brace
-----BEGIN CERTIFICATE-----
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ
<div class="btn-primary-500 text-gray-900">
function f(a, b) { return a[b] || 0; }
SELECT id, name FROM users WHERE id = 42;
@media (max-width: 600px) { display: none }
@Override public int hashCode()
npm i @types/node@20.11.5
icon@2x.png is missing
git clone git@example.com:team/repo.git
meet @ noon, dinner @ eight
tweet it @everyone, please
price: 5 @ 2.50 each
name@ is not an address
reply to all but not to none
follow the dot com boom at home
at the end of the day dot the i
we sold 5 at dot prices
IBAN means international bank account number
GB is gigabyte, DE is a language code
de facto standard 12345678
FR 12 is the rule number; NL 34 the other
the pin has 4 digits; a card has 16
SSN stands for social security number
the form 12-3456789 is an employer number
000-12-3456 is never issued
case 24-1234-56 was closed
IP addresses have four parts
1.2.3 is a version, 1.2.3.4.5 a section
10.5.3.2.1 in the outline
2001: a film title; 42::answer
ab::cd::ef is C++ scope
10:20:30:40 are lap times
phone numbers vary by country
call stack depth 512 exceeded
call sort() 1000000 times
mobile first design at 320 px
fax machines are obsolete
dial 911 in an emergency
the number 42 is the answer
we need 2000000 units by May
sum of 123 456 789 and 987 654 321
1234 5678 is a short pair
2024-2025 season, 380 matches
open 9-5, closed 12-1
6-7-8-9-10 is a straight
500-1000-1500 calories
0800-1600 opening hours
serial 0123456789ABCDEF
Write a poem about the sea in autumn.
Summarise this article in three sentences.
The cat sat on the mat and looked outside.
How do I reset my router?
Translate "good morning" into French.
Rewrite the paragraph in a formal tone.
What is the derivative of x squared?
Explain how a heat pump works.
Photosynthesis turns light into sugar.
The committee approved the minutes.
Java and Python are programming languages.
Rust prevents data races at compile time.
Docker images are built in layers.
Kafka topics have partitions.
Use Excel or Word for the report.
The Windows update failed twice.
Monday is better than Friday for me.
In June and July the shop is closed.
Easter falls in April this year.
Add basil, rosemary and thyme.
The oak, the ash and the beech are trees.
A violin, a cello and a piano.
Chess openings: the Sicilian, the Dutch.
Is Bluetooth faster than Zigbee?
The Fourier transform is linear.
Newton's method converges quickly.
Bayesian inference needs a prior.
Kind regards from the whole team
Dear Sir or Madam, I am writing to complain.
Happy birthday to you!
The customer wants a refund.
Our manager said no.
My sister and her husband are coming.
The doctor told the patient to rest.
das Haus hat drei Zimmer und einen Garten
Die Rechnung ist noch offen, bitte prüfen.
le chat dort sur le canapé
Il pleut depuis ce matin.
el informe está listo para revisar
今日は天気がいいですね
这个问题怎么解决？
Сегодня хорошая погода.
TODO: REFACTOR THE PARSER BEFORE RELEASE
ERROR: CONNECTION TIMED OUT AFTER 30 SECONDS
WARNING - DISK USAGE AT 91 PERCENT
please make this text shorter
can you fix the grammar in this paragraph
what is a good name for a bakery
give me five ideas for dinner
why is the sky blue
convert 5 miles to kilometres
sort the list by price, then by rating
the recipe needs olive oil and lemon
Turkey soup with rice and china plates
may i ask mark to the exam with will
"""
