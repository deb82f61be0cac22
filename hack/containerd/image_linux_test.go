package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// object is any JSON object.
type object = map[string]any

// writeImage writes an OCI image archive of busybox.
func writeImage(t *testing.T, to string) {
	t.Helper()
	var archive bytes.Buffer
	all := tar.NewWriter(&archive)
	blob := func(content []byte) (digest string, size int) {
		sum := sha256.Sum256(content)
		add(t, all, tar.Header{Name: "blobs/sha256/" + hex.EncodeToString(sum[:])}, content)
		return "sha256:" + hex.EncodeToString(sum[:]), len(content)
	}
	layer, layerSize := blob(writeLayer(t))
	config, configSize := blob(encode(t, object{"architecture": runtime.GOARCH, "os": "linux", "config": object{"Env": []string{"PATH=/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{layer}}}))
	const oci = "application/vnd.oci.image."
	manifest, manifestSize := blob(encode(t, object{"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
		"config": object{"mediaType": oci + "config.v1+json", "digest": config, "size": configSize},
		"layers": []object{{"mediaType": oci + "layer.v1.tar", "digest": layer, "size": layerSize}}}))
	add(t, all, tar.Header{Name: "oci-layout"}, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	add(t, all, tar.Header{Name: "index.json"}, encode(t, object{"schemaVersion": 2, "manifests": []object{{"mediaType": oci + "manifest.v1+json",
		"digest": manifest, "size": manifestSize, "annotations": object{"io.containerd.image.name": image}}}}))
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeLayer is a root with busybox under all of its names, and a user.
func writeLayer(t *testing.T) []byte {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range strings.Fields("bin etc proc dev sys tmp run root") {
		add(t, w, tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	names, err := exec.Command(path, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(names)) {
		if name != "busybox" {
			add(t, w, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return layer.Bytes()
}

func add(t *testing.T, w *tar.Writer, h tar.Header, content []byte) {
	t.Helper()
	if h.Size = int64(len(content)); h.Mode == 0 {
		h.Mode = 0o644
	}
	err := w.WriteHeader(&h)
	if err == nil {
		_, err = w.Write(content)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
