package plan

// initID is the user and group that our init has inside. No request may ask for it
// (spec allows ids up to 65533), so the payload can neither signal nor read it.
const initID = 65535

// protectProc covers what must not be read and freezes what must not be
// written. It comes after all mounts, because a later mount would uncover it.
func (c *compiler) protectProc() error {
	c.field = "linux.maskedPaths"
	for _, p := range c.spec.Linux.MaskedPaths {
		switch c.facts.Kinds[p] {
		case KindFile:
			c.into(RegTree, OpOpenTree, p, reg(RegRoot), str("dev/null"), flag(openTreeClone|oCloexec, "OPEN_TREE_CLONE"))
			c.target(p)
			c.do(OpMoveMount, p, reg(RegTree), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
			c.closeReg(RegTarget)
			c.closeReg(RegTree)
		case KindDir:
			c.target(p)
			c.do(OpFchdir, p, reg(RegTarget))
			c.do(OpMount, p, str("tmpfs"), str("."), str("tmpfs"), flag(msRdonly|msNosuid|msNodev|msNoexec, "ro,nosuid,nodev,noexec"), str("size=4k,nr_inodes=2,mode=0555"))
			c.do(OpFchdir, "/", reg(RegRoot))
			c.closeReg(RegTarget)
		}
	}
	c.field = "linux.readonlyPaths"
	for _, p := range c.spec.Linux.ReadonlyPaths {
		if c.facts.Kinds[p] == KindMissing {
			continue
		}
		c.target(p)
		c.into(RegTree, OpOpenTree, p, reg(RegTarget), str(""), flag(openTreeClone|oCloexec|atEmptyPath|atRecursive, "OPEN_TREE_CLONE|AT_RECURSIVE"))
		c.do(OpMountSetattr, p, reg(RegTree), str(""), flag(atEmptyPath|atRecursive, "AT_RECURSIVE"),
			raw(mountAttr(mountAttrRdonly|mountAttrNosuid|mountAttrNodev|mountAttrNoexec, 0, 0), "ro,nosuid,nodev,noexec"), imm(mountAttrSize))
		c.do(OpMoveMount, p, reg(RegTree), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
		c.closeReg(RegTree)
		c.closeReg(RegTarget)
	}
	if len(c.spec.Linux.MaskedPaths) > 0 && len(c.spec.Linux.ReadonlyPaths) > 0 {
		c.wall("proc_masking")
	}
	return nil
}

// seal makes the root read-only and leaves the host's tree for good.
func (c *compiler) seal() error {
	if c.hasDev() {
		// Everything that belongs in /dev is there; user 0 and a rootless
		// payload own the directory and could fill it.
		c.field = "linux.devices"
		c.target("/dev")
		c.do(OpMountSetattr, "/dev", reg(RegTarget), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
		c.closeReg(RegTarget)
	}
	c.field = "root.readonly"
	if c.spec.Root.Readonly {
		c.do(OpMountSetattr, "/", reg(RegRoot), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
	}
	c.leave()
	return nil
}

// leave makes the new root the root.
func (c *compiler) leave() {
	c.field = "root.path"
	c.do(OpFchdir, "/", reg(RegRoot))
	// pivot_root(2), NOTES: with both arguments "." the old root ends up on top
	// of the new one and the next line detaches it.
	c.do(OpPivotRoot, "/", str("."), str("."))
	c.do(OpUmount2, "old root", str("."), flag(mntDetach, "MNT_DETACH"))
	// pivot_root moves only processes whose directory is the old root.
	c.do(OpChdir, "/", str("/"))
	c.closeReg(RegRoot)
}

// names sets what identifies the machine inside, and brings loopback up.
func (c *compiler) names() error {
	if h := c.spec.Hostname; h != "" {
		c.field = "hostname"
		c.do(OpSethostname, h, str(h), imm(int64(len(h))))
	}
	if d := c.spec.Domainname; d != "" {
		c.field = "domainname"
		c.do(OpSetdomainname, d, str(d), imm(int64(len(d))))
	}
	if (c.plan.Clone|c.later)&CloneNewNet != 0 {
		c.field = "linux.namespaces"
		ifreq := make([]byte, 40)
		copy(ifreq, "lo")
		ifreq[16] = iffUpRunning
		c.into(RegFile, OpSocket, "lo", flag(afInet, "AF_INET"), flag(sockDgramCloexec, "SOCK_DGRAM|SOCK_CLOEXEC"), imm(0))
		c.do(OpIoctl, "lo", reg(RegFile), flag(siocSIFFlags, "SIOCSIFFLAGS"), raw(ifreq, "lo up"))
		c.closeReg(RegFile)
	}
	return nil
}

// keyring leaves the session keyring of the launcher for a new, empty one
// (keyctl(2)): the filter forbids keyctl, and this wall does not depend on it.
func (c *compiler) keyring() error {
	if c.facts.Kinds["/proc/keys"] == KindMissing {
		return nil // a kernel without keys, which has nothing to leave
	}
	c.field = "process"
	c.do(OpKeyctl, "session keyring", flag(keyctlJoinSession, "KEYCTL_JOIN_SESSION_KEYRING"), imm(0))
	return nil
}

// bound empties the capability bounding set while the process may still do so.
// What is forked later inherits that.
func (c *compiler) bound() error {
	c.field = "process.capabilities"
	last := c.facts.LastCap
	if last == 0 {
		last = capLastDefault
	}
	for i := 0; i <= last; i++ {
		if c.caps.bounding&(1<<i) != 0 {
			continue
		}
		c.do(OpPrctl, "", flag(prCapbsetDrop, "PR_CAPBSET_DROP"), imm(int64(i)), imm(0), imm(0), imm(0))
	}
	if c.caps.any() {
		return nil // root inside is root then, and ids change capabilities as capabilities(7) has it
	}
	c.do(OpPrctl, "", flag(prSetSecurebits, "PR_SET_SECUREBITS"), flag(securebitsLocked, "NOROOT and NO_CAP_AMBIENT_RAISE, all locked"), imm(0), imm(0), imm(0))
	c.wall("capabilities")
	return nil
}

// dropAll empties the remaining four capability sets and forbids new privilege.
func (c *compiler) dropAll() {
	c.field = "process.capabilities"
	c.do(OpPrctl, "", flag(prCapAmbient, "PR_CAP_AMBIENT"), flag(prCapAmbientClear, "CLEAR_ALL"), imm(0), imm(0), imm(0))
	header := []byte{0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0} // _LINUX_CAPABILITY_VERSION_3, this process
	// Version 3 takes two data structs; a single one reads beyond its end.
	c.do(OpCapset, "", raw(header, "v3"), raw(make([]byte, 24), "effective, permitted and inheritable empty"))
	c.field = "process.noNewPrivileges"
	c.do(OpPrctl, "", flag(prSetNoNewPrivs, "PR_SET_NO_NEW_PRIVS"), imm(1), imm(0), imm(0), imm(0))
}

// init is what process 1 does once the command runs: it becomes nobody.
func (c *compiler) init() error {
	if c.facts.NoInit {
		return nil
	}
	c.out = &c.plan.Init
	// First of all: rootless the command has our ids, and only our capabilities
	// keep it from us until this holds.
	c.field = "process"
	c.do(OpPrctl, "init", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0))
	c.field = "process.user"
	if !c.facts.Rootless {
		c.do(OpSetresgid, "init", imm(initID), imm(initID), imm(initID))
		c.do(OpSetresuid, "init", imm(initID), imm(initID), imm(initID))
	}
	c.dropAll()
	c.field = "process"
	// Again: a change of credentials sets it to fs.suid_dumpable.
	c.do(OpPrctl, "init", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0))
	// After the last change of credentials, which clears it.
	c.do(OpPrctl, "init", flag(prSetPdeathsig, "PR_SET_PDEATHSIG"), flag(sigKill, "SIGKILL"), imm(0), imm(0), imm(0))
	return nil
}
