#!/usr/bin/env bash
# Says what DVC will want of git, before anything is installed or run: a repository with a commit, and for an experiment
# (an argument that is not empty) a name and an e-mail. usage: tools/check_git.sh [EXPERIMENT]
set -euo pipefail
cd "$(dirname "$0")/.."
refuse() {
  echo "fakeface: $1, then run this command again." >&2
  exit 1
}
is_known() { # name or email: in git's settings, or in both variables that git and DVC read
  local author="GIT_AUTHOR_${1^^}" committer="GIT_COMMITTER_${1^^}"
  [ -n "$(git config "user.$1")" ] || { [ -n "${!author:-}" ] && [ -n "${!committer:-}" ]; }
}
if ! git rev-parse --quiet --verify HEAD > /dev/null 2>&1; then
  refuse "this folder is no git repository with a commit, and DVC needs one; type \`git init\` and \`git add --all && git commit --message start\`"
fi
if [ -n "${1:-}" ] && ! { is_known name && is_known email; }; then
  refuse "git knows no name or e-mail of yours, and DVC needs both to keep an experiment; type \`git config user.name \"Your Name\"\` and \`git config user.email you@example.org\`"
fi
