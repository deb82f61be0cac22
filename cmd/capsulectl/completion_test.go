package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestCompletionBash asks bash itself what the script proposes. capsulectl is a
// function there, so that ids and profiles are known.
func TestCompletionBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err) // the project's own scripts need it
	}
	for line, want := range map[string]string{
		"pru":               "prune",
		"run --mem":         "--memory",
		"run -p a":          "ai-agent",
		"run --profile m":   "mine",
		"run --lang p":      "python",
		"run -o j":          "json",
		"inspect 3":         "3f2a-ended",
		"stop ":             "1b-lives",
		"logs --fol":        "--follow",
		"config s":          "show",
		"config show --pro": "--profile",
		"seccomp ex":        "explain",
		"completion z":      "zsh",
		"help ins":          "inspect",
		"doctor --pa":       "--path",
		"doctor -o te":      "template=",
		"config show -p m":  "mine",
		"bundle expo":       "export",
		"bundle export 3":   "3f2a-ended",
		"ps -o t":           "table template=",
	} {
		script := completionBash() + `
capsulectl() {
    case "$*" in
    "completion profiles") printf 'ai-agent\nmine\n' ;;
    "ps -q") echo 1b-lives ;;
    "ps -aq") printf '1b-lives\n3f2a-ended\n' ;;
    *) return 1 ;;
    esac
}
COMP_WORDS=(capsulectl ` + line + `)
[ "${*: -1}" != blank ] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_capsulectl
echo "${COMPREPLY[*]}"
`
		args := []string{"-c", script, "bash"}
		if strings.HasSuffix(line, " ") {
			args = append(args, "blank")
		}
		out, err := exec.Command(bash, args...).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("capsulectl %s: %q, %v; want %q", line, out, err, want)
		}
	}
}

// TestCompletionProfiles: the names of the configuration are among them.
func TestCompletionProfiles(t *testing.T) {
	file := written(t, "c.toml", "[profiles.mine]\ninherits = 'ai-agent'\n")
	b := newBench("")
	b.lookupEnv = func(name string) (string, bool) { return file, name == "CAPSULE_CONFIG" }
	if code := b.main([]string{"completion", "profiles"}); code != 0 || !strings.Contains(b.out.String(), "mine\n") || !strings.Contains(b.out.String(), "ai-agent\n") {
		t.Errorf("exit %d: %s%s", code, b.out.String(), b.errOut.String())
	}
}

// TestEveryVerbIsDocumented: each verb has a text, and a golden file that
// hack/gendocs makes the manual from.
func TestEveryVerbIsDocumented(t *testing.T) {
	for _, verb := range strings.Fields(verbWords()) {
		b := newBench("")
		if code := b.main([]string{"help", verb}); code != 0 {
			t.Errorf("help %s: exit %d: %s", verb, code, b.errOut.String())
			continue
		}
		golden(t, verb+".txt", b.out.String())
		if !strings.Contains(b.out.String(), "Examples:\n") {
			t.Errorf("help %s has no examples", verb)
		}
		if !strings.Contains(appHelp, "\n  "+verb+" ") {
			t.Errorf("%s is not in the list of verbs", verb)
		}
	}
}
