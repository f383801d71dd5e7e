package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	ihelper "github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"golang.org/x/sync/errgroup"
)

// form is how files and directories become blocks.
type form struct {
	uio.UnixFSProfile
	trickle bool
}

// formOf: v1 is unixfs-v1-2025, v0 is unixfs-v0-2015, and seed is what `ipfs files write` makes: as v0, but trickle.
func formOf(name string, chunkSize int64) form {
	f := form{UnixFSProfile: uio.UnixFS_v1_2025}
	if name == "v0" || name == "seed" {
		f.UnixFSProfile = uio.UnixFS_v0_2015
	}
	f.trickle = name == "seed"
	if chunkSize > 0 {
		f.ChunkSize = chunkSize
	}
	return f
}

func (n *node) addFile(f form, r io.Reader) (ipld.Node, error) {
	buf := ipld.NewBufferedDAG(n.ctx, n.dag)
	dp := ihelper.DagBuilderParams{Dagserv: buf, RawLeaves: f.RawLeaves, Maxlinks: f.FileDAGWidth, CidBuilder: f.CidBuilder()}
	db := must(dp.New(chunk.NewSizeSplitter(r, f.ChunkSize)))
	layout := balanced.Layout
	if f.trickle {
		layout = trickle.Layout
	}
	return must(layout(db)), buf.Commit()
}

func (n *node) addPath(f form, name string) (ipld.Node, error) {
	if st := must(os.Stat(name)); !st.IsDir() {
		file := must(os.Open(name))
		defer file.Close()
		return n.addFile(f, file)
	}
	d := n.directory(f)
	for _, e := range must(os.ReadDir(name)) {
		if err := d.AddChild(n.ctx, e.Name(), must(n.addPath(f, filepath.Join(name, e.Name())))); err != nil {
			return nil, err
		}
	}
	nd := must(d.GetNode())
	return nd, n.dag.Add(n.ctx, nd)
}

func (n *node) directory(f form) uio.Directory {
	return must(uio.NewDirectory(n.dag, uio.WithCidBuilder(f.CidBuilder()), uio.WithMaxHAMTFanout(f.HAMTShardWidth), uio.WithSizeEstimationMode(f.HAMTSizeEstimation)))
}

// patch puts child below root at a path, making directories that are not there.
func (n *node) patch(root ipld.Node, path []string, child ipld.Node) (ipld.Node, error) {
	if len(path) == 0 {
		return child, nil
	}
	d := must(uio.NewDirectoryFromNode(n.dag, root))
	below, err := d.Find(n.ctx, path[0])
	if errors.Is(err, os.ErrNotExist) {
		below = must(n.directory(formOf("v1", 0)).GetNode())
	} else if err != nil {
		return nil, err
	}
	if err := d.AddChild(n.ctx, path[0], must(n.patch(below, path[1:], child))); err != nil {
		return nil, err
	}
	nd := must(d.GetNode())
	return nd, n.dag.Add(n.ctx, nd)
}

// open resolves CID[/a/b] over bitswap.
func (n *node) open(ctx context.Context, p string) (ipld.Node, error) {
	seg := strings.Split(strings.TrimPrefix(strings.Trim(p, "/"), "ipfs/"), "/")
	nd, err := merkledag.NewSession(ctx, n.dag).Get(ctx, must(cid.Decode(seg[0])))
	for _, s := range seg[1:] {
		if err != nil {
			return nil, err
		}
		var d uio.Directory
		if d, err = uio.NewDirectoryFromNode(n.dag, nd); err == nil {
			nd, err = d.Find(ctx, s)
		}
	}
	return nd, err
}

// get writes a file or directory to this machine's disk, as `ipfs get` does, many files at once.
func (n *node) get(ctx context.Context, c cid.Cid, to string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	if err := n.getInto(ctx, group, merkledag.NewSession(ctx, n.dag), c, to); err != nil {
		return err
	}
	return group.Wait()
}

func (n *node) getInto(ctx context.Context, group *errgroup.Group, session ipld.NodeGetter, c cid.Cid, to string) error {
	nd, err := session.Get(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	if d, err := uio.NewDirectoryFromNode(n.dag, nd); err == nil {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return d.ForEachLink(ctx, func(l *ipld.Link) error {
			return n.getInto(ctx, group, session, l.Cid, filepath.Join(to, l.Name))
		})
	}
	group.Go(func() error {
		file, err := unixfile.NewUnixfsFile(ctx, n.dag, nd)
		if err != nil {
			return err
		}
		out := must(os.Create(to))
		if _, err := io.Copy(out, file.(files.File)); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
		return out.Close()
	})
	return nil
}

// importCar takes the blocks of a CARv1.
func (n *node) importCar(r io.Reader) (int, error) {
	in := bufio.NewReader(r)
	header := must(binary.ReadUvarint(in))
	must(io.CopyN(io.Discard, in, int64(header)))
	for count := 0; ; count++ {
		size, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return count, nil
		}
		section := make([]byte, must(size, err))
		must(io.ReadFull(in, section))
		used, c, err := cid.CidFromBytes(section)
		if err != nil {
			return count, err
		}
		if sum := must(c.Prefix().Sum(section[used:])); !sum.Equals(c) {
			return count, fmt.Errorf("the CAR has other bytes for %s", c)
		}
		if err := n.bstr.Put(n.ctx, must(blocks.NewBlockWithCid(section[used:], c))); err != nil {
			return count, err
		}
	}
}
