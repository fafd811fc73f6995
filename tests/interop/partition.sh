#!/usr/bin/env bash
# Partitions with real cuts: four validators and a follower, each a process in a network namespace of its own, joined by
# bridges that are taken apart and put together again. One of four cut off: the trunk goes on without it. Two and two: the
# trunk stands still, lanes go on, answers are `pending`; when the line is back, everything pending is settled with a
# receipt, and of two entries that spend the same thing exactly one is.
. "$(dirname "$0")/lib"
need_instar
need ip "install iproute2"
need git "install git 2.39 or newer"
need jq "install jq"
need python3 "install Python 3"
need flock "install util-linux"
[ "$(id -u)" = 0 ] || exec unshare --map-root-user --net --mount sh -c 'mount -t tmpfs tmpfs /run && exec bash "$1"' sh "$0"

tag=ip$$
hosts=(1 2 3 4 5)
at() { local host=$1; shift; ip netns exec "$tag-$host" "$@"; }
url() { echo "http://10.99.0.$1:8080"; }
home() { echo "$scratch/home-$1"; }
run() { local host=$1; shift; at "$host" "$instar" "$@" --node "$(url "$host")"; }

pids=()
finish() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for host in hub "${hosts[@]}"; do ip netns del "$tag-$host" 2>/dev/null || true; done
}
trap finish EXIT
died() { fail "$* (see $scratch/*.log)"; }

# A switch with two halves in a namespace of its own: a host is moved from one half to the other to cut it off.
for host in hub "${hosts[@]}"; do
  ip netns add "$tag-$host" || fail "network namespaces can't be made here; as root, or with user namespaces allowed, they can"
  ip -n "$tag-$host" link set lo up
done
for half in west east; do
  ip -n "$tag-hub" link add "$half" type bridge
  ip -n "$tag-hub" link set "$half" up
done
for host in "${hosts[@]}"; do
  ip -n "$tag-$host" link add eth0 type veth peer name "port$host" netns "$tag-hub"
  ip -n "$tag-$host" addr add "10.99.0.$host/24" dev eth0
  ip -n "$tag-$host" link set eth0 up
  ip -n "$tag-hub" link set "port$host" master west up
done
move() { local half=$1 host; shift; for host in "$@"; do ip -n "$tag-hub" link set "port$host" master "$half"; done; }

# A chain with the coin, made with the program's verbs alone.
mkdir "$scratch/source"
tar -C "$root/node/dapps" --exclude=target -c . | tar -C "$scratch/source" -x
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
git -C "$scratch/source" init --quiet
git -C "$scratch/source" add --all
git -C "$scratch/source" -c user.name=check -c user.email=check@localhost commit --quiet --message "The dapps"
"$instar" build "$scratch/source" --slot dapps/coin --number 1 --name coin --out "$scratch/coin-1" 2>"$scratch/build.log" ||
  fail "the coin can't be built here; \`instar doctor\` says what is missing"
balances={}
for account in ada ben cy dee; do
  "$instar" key new account -o "$scratch/$account.json" --json >"$scratch/$account.public"
  [ "$account" = dee ] && amount=2000 || amount=100
  balances=$(jq -c --arg k "$(jq -r .public "$scratch/$account.public")" --arg a "$amount" '.[$k] = $a' <<<"$balances")
done
jq -n --argjson b "$balances" '{chain_name: "partition", time_ms: 1795262400000, accounts: {coin: {balance: $b}}}' >"$scratch/plan.json"
for host in 1 2 3 4; do
  "$instar" key new --home "$(home "$host")" --name "val-$host" \
    --consensus "/ip4/10.99.0.$host/tcp/7001" --data "/ip4/10.99.0.$host/tcp/7002" >"$scratch/val-$host.json"
done
for host in 1 2 3 4; do
  chain=$("$instar" chain init --home "$(home "$host")" --plan "$scratch/plan.json" --release "$scratch/coin-1" \
    --http "10.99.0.$host:8080" --validator "$scratch"/val-*.json --json | jq -r .chain)
done
start() { # host
  # Not through a function: the process that is killed later must be the node itself.
  ip netns exec "$tag-$1" "$instar" node run --home "$(home "$1")" >>"$scratch/node-$1.log" 2>&1 &
  pids+=("$!")
}
until_true() { # seconds, what, command...
  local left=$(($1 * 5)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1)); [ "$left" -gt 0 ] || died "$what did not happen"
    sleep 0.2
  done
}
answers() { run "$1" chain status; }
height() { run "$1" chain status --json | jq .height; }
reached() { [ "$(height "$1")" -ge "$2" ]; }
transfer() { # host, account, amount: the entry's id; it is not waited for
  run "$1" send coin "{\"op\":\"transfer\",\"to\":\"$(printf 'ab%.0s' {1..32})\",\"amount\":\"$3\"}" --key "$scratch/$2.json" --no-wait
}
label() { run "$1" receipt "$2" --json | jq -r .label; }
labelled() { [ "$(label "$1" "$2")" = "$3" ]; }
settled() { case "$(label "$1" "$2")" in final | conflicted) [ "$(run "$1" receipt "$2" --json | jq -r .height)" != null ] ;; *) false ;; esac; }
# A follower asks every 15 s; an age that is unknown is a large one.
age_ms() { run "$1" chain status --json | jq '.fresh_ms // 1000000000'; }
fresh() { [ "$(age_ms "$1")" -lt 20000 ]; }
stale() { [ "$(age_ms "$1")" -ge 20000 ]; }
balance() { # host, account, more arguments
  local host=$1 account=$2; shift 2
  run "$host" dapp query coin "{\"op\":\"balance\",\"account\":\"$(jq -r .public "$scratch/$account.public")\"}" --json "$@"
}

for host in 1 2 3 4; do start "$host"; done
for host in 1 2 3 4; do until_true 60 "node $host answering" answers "$host"; done
first=$(transfer 1 ada 1)
until_true 60 "the first transfer becoming final" labelled 1 "$first" final
ok "four hosts make a chain, and a transfer is final"

# A follower joins by the chain's id; a node of another chain is refused before anything is written.
other=$(printf '0%.0s' {1..64})
if at 5 "$instar" chain join "$(url 1)" --id "$other" --home "$(home 5)" 2>"$scratch/refused"; then fail "another chain was joined"; fi
grep -q "has chain $chain" "$scratch/refused" || fail "the refusal does not name the chain: $(cat "$scratch/refused")"
[ ! -e "$(home 5)/ledger.git" ] || fail "something was written for a refused chain"
# The first that it follows changes a byte of every answer: now in a certificate, now in a pack.
cat >"$scratch/liar.py" <<'PY'
import http.server, sys, urllib.request
turn = 0
class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global turn
        try:
            answer = bytearray(urllib.request.urlopen(sys.argv[1] + self.path, timeout=40).read())
        except urllib.error.HTTPError as refusal:
            self.send_error(refusal.code)
            return
        if self.path.startswith('/v1/sync/'):
            turn += 1
            answer[60 if turn % 2 else len(answer) - 30] ^= 1
        self.send_response(200)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('10.99.0.5', 9999), Liar).serve_forever()
PY
ip netns exec "$tag-5" python3 "$scratch/liar.py" "$(url 1)" 2>"$scratch/liar.log" &
pids+=("$!")
until_true 20 "the liar answering" at 5 python3 -c 'import urllib.request; urllib.request.urlopen("http://10.99.0.5:9999/v1/genesis")'
at 5 "$instar" chain join "http://10.99.0.5:9999" "$(url 2)" --id "$chain" --home "$(home 5)" --http 10.99.0.5:8080 \
  --data /ip4/10.99.0.5/tcp/7002 --json >"$scratch/joined"
start 5
until_true 60 "the follower answering" answers 5
until_true 60 "the follower reaching the trunk" labelled 5 "$first" final
same "$(run 5 chain status --json | jq -r .role)" follower "the joined node follows"
plain() { sed 's/\x1b\[[0-9;]*m//g' "$scratch/node-5.log"; }
plain | grep -q 'a source of blocks failed and rests.*9999' || fail "the source that changes bytes is not named"
ok "a source that changes bytes is named and left alone: $(plain | grep -o 'why="[^"]*"' | head -n 1)"
same "$(balance 5 ada | jq -r '.answer.balance + " " + .label')" "99 final" "the follower ran the coin itself"

until_true 60 "the follower being fresh" fresh 5
same "$(run 1 chain status --json | jq .fresh_ms)" null "two of four validators sign the follower's nonce; a validator asks nobody"

# One of four is cut off, and the follower from all that it follows.
move east 4 5
alone=$(transfer 4 ben 2)
until_true 20 "a pending answer of the node that is cut off" labelled 4 "$alone" pending
same "$(run 4 receipt "$alone" --json | jq -r .receipt.outcome)" applied "cut off, it says what the entry would come to"
same "$(balance 4 ben | jq -r '.answer.balance + " " + .label')" "98 pending" "and answers from the provisional view"
same "$(balance 4 ben --final | jq -r '.answer.balance + " " + .label')" "100 final" "or from what is final, if asked so"
before=$(height 1)
going=$(transfer 1 ada 1)
until_true 60 "a final transfer without the fourth" labelled 1 "$going" final
[ "$(height 1)" -gt "$before" ] || fail "the trunk stood still with one of four cut off"
ok "with one of four cut off the trunk goes on"
until_true 60 "the follower that is cut off growing stale" stale 5
answers 5 >/dev/null || fail "a stale follower does not answer"
ok "the follower that is cut off answers, and says how old its answers may be ($(age_ms 5) ms)"
move west 4 5
until_true 90 "the follower being fresh again" fresh 5
until_true 60 "the entry of the node that was cut off" labelled 1 "$alone" final
until_true 60 "the node that was cut off" labelled 4 "$going" final
ok "healed: what was pending there is final everywhere"

# Two and two. cy spends the same hundred on both sides.
move east 3 4
sleep 2 # What was under way may still be decided by the second that a precommit was away from it.
before=$(height 1)
west=$(transfer 1 ada 5)
east=$(transfer 3 ben 7)
cy_west=$(transfer 2 cy 80)
cy_east=$(transfer 4 cy 70)
for pair in "1 $west" "2 $west" "3 $east" "4 $east" "1 $cy_west" "3 $cy_east"; do
  # shellcheck disable=SC2086
  until_true 30 "a pending answer ($pair)" labelled $pair pending
done
ok "two and two: lanes go on, and reach whoever is on the same side"
same "$(balance 2 cy | jq -r '.answer.balance + " " + .label')" "20 pending" "the west counts with its spending"
same "$(balance 3 cy | jq -r '.answer.balance + " " + .label')" "30 pending" "the east with the other"
sleep 5
same "$(height 1) $(height 3)" "$before $before" "the trunk stands still on both sides"
label 3 "$west" >/dev/null 2>&1 && fail "an entry crossed the cut"
# A device that is offline for weeks: more commits on one lane than a peer keeps of it, and a crash in the middle.
for _ in $(seq 1100); do last=$(transfer 2 dee 1); done
kill -9 "${pids[1]}"
wait "${pids[1]}" 2>/dev/null || true
# A container's helper that was just being started holds a copy of the store's lock until it has become another program.
until_true 20 "the killed node's store being free" flock -n "$(home 2)/blocks.redb" true
start 2
until_true 60 "node 2 answering after it was killed" answers 2
move west 3 4
for entry in "$west" "$east" "$cy_west" "$cy_east" "$last"; do
  for host in 1 2 3 4 5; do until_true 90 "entry $entry settled at host $host" settled "$host" "$entry"; done
done
same "$(label 5 "$last")" final "a lane of over a thousand commits, written without a quorum, is merged to its end"
same "$(label 1 "$west") $(label 1 "$east")" "final final" "healed: what conflicts with nothing is final"
same "$(printf '%s\n' "$(label 2 "$cy_west")" "$(label 2 "$cy_east")" | sort | paste -sd' ')" "conflicted final" \
  "of two that spend the same, one is final and one has a receipt that says no"
for host in 2 3 4 5; do
  for entry in "$west" "$east" "$cy_west" "$cy_east"; do
    [ "$(run "$host" receipt "$entry" --json | jq -cS 'del(.label)')" = "$(run 1 receipt "$entry" --json | jq -cS 'del(.label)')" ] ||
      fail "hosts 1 and $host say different things of $entry"
  done
done
ok "all five say the same of each"

# What stands is a ledger that stock git and an auditor take, cloned from the follower.
at 5 git clone --quiet "$(url 5)/ledger.git" "$scratch/clone"
git -C "$scratch/clone" fsck --strict --no-progress 2>&1 | grep . && fail "git fsck --strict complains"
"$instar" chain verify "$scratch/clone" >"$scratch/verified" || fail "chain verify refuses the clone: $(cat "$scratch/verified")"
ok "the follower's clone passes git fsck --strict and chain verify"
