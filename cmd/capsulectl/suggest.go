package main

// unknownFlagHint proposes what the caller may have meant by a flag that does
// not exist. Flags of docker run, bubblewrap and systemd-run that have a counterpart
// here lead to it.
func unknownFlagHint(name string) string {
	if hint := dockerFlagHint(name); hint != "" {
		return hint
	}
	if hint := othersFlagHint(name); hint != "" {
		return hint
	}
	if len(name) > 1 {
		if longOption(name) != nil {
			return "Did you mean --" + name + "?"
		}
		var names []string
		for i := range options {
			if options[i].IsVisible() {
				names = append(names, options[i].name)
			}
		}
		if best := nearest(name, names); best != "" {
			return "Did you mean --" + best + "?"
		}
	}
	return "See capsulectl run --help; flags of the command itself stand after it, or after --."
}

func dockerFlagHint(name string) string {
	switch name {
	case "rm":
		return "Leave it out: every sandbox is removed when it ends."
	case "volume", "mount":
		return "Use --bind SRC:DEST[:ro|rw], or --readonly and --writable."
	case "tty":
		return "There are no terminals yet; -i passes standard input on."
	case "interactive":
		return "Did you mean --stdin?"
	case "pids-limit":
		return "Did you mean --max-pids?"
	case "cpu-shares":
		return "Did you mean --cpu?"
	case "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops":
		return "Did you mean --io read=SIZE, write=SIZE, read-ops=N or write-ops=N?"
	case "ulimit":
		return "Did you mean --rlimit?"
	case "net":
		return "Did you mean --network?"
	case "security-opt":
		return "Did you mean --seccomp?"
	case "tmpfs":
		return "/tmp and /workspace are writable already; --disk sets their size."
	case "read-only":
		return "Leave it out: the root is always read-only."
	case "cap-drop":
		return "Leave it out: the command never has capabilities."
	case "cap-add", "privileged":
		return "The command never has capabilities."
	case "name":
		return "Use --label name=VALUE, or --execution-id."
	case "entrypoint":
		return "Give the program as the command."
	case "as-pid-1":
		return "Did you mean --no-init?"
	case "init":
		return "Leave it out: a reaping init is the default; --no-init turns it off."
	case "u":
		return "Did you mean --user?"
	case "publish", "P", "expose":
		return "Nothing can be published; with --network the command listens at the host's own addresses."
	case "image":
		return "There are no images: the host's own programs run, or those of --rootfs DIR."
	}
	return ""
}

// othersFlagHint is for flags of bubblewrap and systemd-run.
func othersFlagHint(name string) string {
	switch name {
	case "chdir", "working-directory":
		return "Did you mean --workdir?"
	case "setenv", "E":
		return "Did you mean --env KEY=VALUE?"
	case "clearenv":
		return "Leave it out: nothing of the caller's environment is passed on but what --env names."
	case "ro-bind", "dev-bind", "bind-try", "ro-bind-try":
		return "Use --readonly PATH for the same place, or --bind SRC:DEST[:ro|rw]."
	case "dev", "proc":
		return "Leave it out: there are a new /proc and a small /dev."
	case "unshare-all", "unshare-user", "unshare-pid", "unshare-ipc", "unshare-net", "unshare-uts", "unshare-cgroup":
		return "Leave it out: every namespace is a new one; --network gives the host's network."
	case "share-net":
		return "Did you mean --network?"
	case "new-session", "die-with-parent", "wait", "pipe", "collect":
		return "Leave it out: so it is here; -d starts what outlives capsulectl."
	case "uid", "gid":
		return "Did you mean --user UID[:GID]?"
	case "property":
		return "Limits are --memory, --cpus, --cpu, --max-pids, --io and --timeout."
	}
	return ""
}

// nearest is the candidate with the smallest edit distance to word, when that is
// small enough for a typing error; else a candidate that word begins; else empty.
func nearest(word string, candidates []string) string {
	best, distance := "", 3
	if len(word) < 4 {
		distance = 2
	}
	for _, c := range candidates {
		if d := editDistance(word, c); d < distance {
			best, distance = c, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, c := range candidates {
		if len(c) > len(word) && c[:len(word)] == word {
			return c
		}
	}
	return ""
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours (optimal string alignment).
func editDistance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows = [3][]int{above, row, before}
	}
	return rows[1][len(b)]
}
