#!/bin/sh
# From a log to recommendations that people see. Call it in an empty folder, with tfvae and curl on the PATH.
# PEOPLE (3000) is how many people the log has at most, EPOCHS (5) how long the model is trained.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
people=${PEOPLE:-3000}
epochs=${EPOCHS:-5}

if [ -n "$(ls -A)" ]; then
    echo "expected an empty folder, found files in $(pwd); make one: mkdir films && cd films" >&2
    exit 2
fi

# Prints a command as it is typed, and runs it.
run() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

# Waits, for a minute at most, until a command succeeds; the service must be alive.
wait_for() {
    tries=300
    until "$@" > /dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ] || ! kill -0 "$server" 2> /dev/null; then
            cat serve.log >&2
            exit 1
        fi
        sleep 0.2
    done
}

# 1. A log and a file of items.
run "python '$here/make_log.py' --people $people"
run "head -n 4 yesterday.csv films.csv"

# 2. A model, how good it is, and whether another is better.
run "tfvae fit yesterday.csv --items films.csv --epochs $epochs --run runs/films-yesterday"
run "tfvae evaluate runs/films-yesterday"
run "tfvae compare yesterday.csv --models ease,rp3beta --minutes 1"

# 3. What it has learnt, and a file of recommendations for everybody.
run "tfvae similar runs/films-yesterday 'the dark knight rises' -k 5"
run "tfvae recommend runs/films-yesterday --all-users --out top.csv -k 5 --at-most 2 --categories genres"
run "head -n 6 top.csv"

# 4. A service. The name films stays, whichever run it leads to.
run "ln -s films-yesterday runs/films"
run "tfvae serve runs/films --port 0 --poll-seconds 1 > serve.log 2>&1 &"
server=$!
trap 'kill "$server" 2> /dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait_for grep -q '^Serving ' serve.log
url=$(sed -n 's/^Serving .* on \(http:[^,]*\),.*/\1/p' serve.log)
question="curl -sS $url/recommend -H 'Content-Type: application/json' -d '{\"history\": [\"tt1454468\"], \"k\": 2}'"
run "$question"

# 5. The next day: the model goes on with the log as it is now, and takes over without a lost request.
run "tfvae fit today.csv --items films.csv --from runs/films-yesterday --run runs/films-today"
before=$(curl -sS "$url/models")
run "ln -sfn films-today runs/films"
moved() {
    [ "$(curl -sS "$url/models")" != "$before" ]
}
wait_for moved
run "$question"

kill "$server"
wait "$server"
trap - EXIT
printf '\n\n'
tail -n 1 serve.log
