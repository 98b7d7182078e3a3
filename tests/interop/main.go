// Command interop checks a log with the libraries of Go's own checksum database, golang.org/x/mod/sumdb.
//
// It reads a folder: vkey, checkpoint, proofs.json and tile/. It prints "ok" and what it checked, or one line
// that begins with what was refused (note, tree, record, tiles, tile), and then exits with 1.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// proofs is what the log claims beside its checkpoint.
type proofs struct {
	Records []struct {
		Index int64
		Leaf  tlog.Hash
		Proof tlog.RecordProof
	}
	Trees []struct {
		Size  int64
		Root  tlog.Hash
		Proof tlog.TreeProof
	}
}

// tiles reads tiles of height 8 as C2SP names them, which is Go's way without the height.
type tiles struct {
	folder string
	read   map[string]bool
}

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		data, err := os.ReadFile(filepath.Join(t.folder, path))
		if err != nil {
			return nil, err
		}
		t.read[path] = true
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func check(folder string) (string, error) {
	vkey, err := os.ReadFile(filepath.Join(folder, "vkey"))
	if err != nil {
		return "", err
	}
	verifier, err := note.NewVerifier(string(vkey))
	if err != nil {
		return "", fmt.Errorf("vkey: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return "", err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return "", fmt.Errorf("note: %w", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return "", errors.New("note: no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return "", fmt.Errorf("note: %w", err)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return "", fmt.Errorf("note: %w", err)
	}

	encoded, err := os.ReadFile(filepath.Join(folder, "proofs.json"))
	if err != nil {
		return "", err
	}
	var claimed proofs
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&claimed); err != nil {
		return "", fmt.Errorf("proofs: %w", err)
	}
	for _, record := range claimed.Records {
		if err := tlog.CheckRecord(record.Proof, size, root, record.Index, record.Leaf); err != nil {
			return "", fmt.Errorf("record %d: %w", record.Index, err)
		}
	}
	for _, tree := range claimed.Trees {
		if err := tlog.CheckTree(tree.Proof, size, root, tree.Size, tree.Root); err != nil {
			return "", fmt.Errorf("tree %d: %w", tree.Size, err)
		}
	}

	// The tiles: this reader checks each against the root before it believes it. What Go proves from them has to
	// be what the log claimed, hash for hash.
	source := tiles{folder, map[string]bool{}}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, source)
	for _, record := range claimed.Records {
		proof, err := tlog.ProveRecord(size, record.Index, hashes)
		if err != nil {
			return "", fmt.Errorf("tiles: record %d: %w", record.Index, err)
		}
		if fmt.Sprint(proof) != fmt.Sprint(record.Proof) {
			return "", fmt.Errorf("tiles: record %d has another proof", record.Index)
		}
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, record.Index)})
		if err != nil {
			return "", fmt.Errorf("tiles: record %d: %w", record.Index, err)
		}
		if leaf[0] != record.Leaf {
			return "", fmt.Errorf("tiles: record %d is another", record.Index)
		}
	}
	for _, tree := range claimed.Trees {
		proof, err := tlog.ProveTree(size, tree.Size, hashes)
		if err != nil {
			return "", fmt.Errorf("tiles: tree %d: %w", tree.Size, err)
		}
		if fmt.Sprint(proof) != fmt.Sprint(tree.Proof) {
			return "", fmt.Errorf("tiles: tree %d has another proof", tree.Size)
		}
		smaller, err := tlog.TreeHash(tree.Size, hashes)
		if err != nil {
			return "", fmt.Errorf("tiles: tree %d: %w", tree.Size, err)
		}
		if smaller != tree.Root {
			return "", fmt.Errorf("tiles: tree %d has another root", tree.Size)
		}
	}
	made, err := rebuild(folder, size, root)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ok %s %d records %d trees %d tiles %d",
		lines[0], size, len(claimed.Records), len(claimed.Trees), made), nil
}

// rebuild makes the tree anew from the leaves, which the tiles of the lowest level hold, and compares the root and
// each tile byte for byte. It gives how many tiles there are.
func rebuild(folder string, size int64, root tlog.Hash) (int, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	wanted := tlog.NewTiles(8, 0, size)
	source := tiles{folder, map[string]bool{}}
	data, err := source.ReadTiles(wanted)
	if err != nil {
		return 0, fmt.Errorf("tile: %w", err)
	}
	var number int64
	for i, tile := range wanted {
		if tile.L != 0 {
			continue
		}
		for leaves := data[i]; len(leaves) > 0; leaves = leaves[tlog.HashSize:] {
			if len(leaves) < tlog.HashSize {
				return 0, fmt.Errorf("tile: %s: no whole hashes", tile.Path())
			}
			hashes, err := tlog.StoredHashesForRecordHash(number, tlog.Hash(leaves[:tlog.HashSize]), reader)
			if err != nil {
				return 0, fmt.Errorf("tile: %w", err)
			}
			stored = append(stored, hashes...)
			number++
		}
	}
	if number != size {
		return 0, fmt.Errorf("tile: %d leaves instead of %d", number, size)
	}
	made, err := tlog.TreeHash(size, reader)
	if err != nil {
		return 0, fmt.Errorf("tile: %w", err)
	}
	if made != root {
		return 0, errors.New("tile: the leaves have another root")
	}
	for i, tile := range wanted {
		right, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return 0, fmt.Errorf("tile: %w", err)
		}
		if !bytes.Equal(right, data[i]) {
			return 0, fmt.Errorf("tile: %s is another", tile.Path())
		}
	}
	return len(source.read), nil
}

func main() {
	failed := false
	for _, folder := range os.Args[1:] {
		said, err := check(folder)
		if err != nil {
			said, failed = err.Error(), true
		}
		fmt.Println(said)
	}
	if failed {
		os.Exit(1)
	}
}
