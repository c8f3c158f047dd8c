//! Overlapping tiles that fade into each other, for a network that cannot hold a whole picture at once.

use crate::conditioning::SampleShape;

/// Where the tiles of one side begin, and how far each reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tiles {
    starts: Vec<usize>,
    extent: usize,
}

/// Parts of a tile that its neighbours cover too, at least.
const OVERLAP: f64 = 0.25;

/// The same of tiles that are denoised one by one.
const HALF: f64 = 0.5;

impl Tiles {
    /// Tiles of at most `tile` elements over `whole`, all of one extent, spread evenly. They begin at multiples of `align`, which divides both,
    /// and share at least this part with their neighbours.
    fn over(whole: usize, tile: usize, overlap: f64, align: usize) -> Self {
        if whole <= tile {
            return Self { starts: vec![0], extent: whole };
        }
        let step = (tile as f64 / align as f64 * (1.0 - overlap)).floor().max(1.0) * align as f64;
        let gaps = ((whole - tile) as f64 / step).ceil() as usize;
        let start = |i: usize| {
            let place = i as f64 * (whole - tile) as f64 / gaps as f64;
            (place / align as f64).round() as usize * align
        };
        Self { starts: (0..=gaps).map(start).collect(), extent: tile }
    }

    /// How much of the element at `at` of tile `index` goes into the whole, before all tiles there are made to sum to one: it rises from
    /// the edges that a neighbour covers. `factor` pixels stand for an element of the extents.
    fn weight(&self, index: usize, at: usize, factor: usize) -> f32 {
        let overlap = |before: usize, after: usize| (self.starts[before] + self.extent - self.starts[after]) * factor;
        let rise = |distance: usize, overlap: usize| ((distance as f32 + 0.5) / overlap as f32).min(1.0);
        let mut weight = 1.0;
        if index > 0 {
            weight *= rise(at, overlap(index - 1, index));
        }
        if index + 1 < self.starts.len() {
            weight *= rise(self.extent * factor - 1 - at, overlap(index, index + 1));
        }
        weight
    }
}

/// Tiles over an image, all of one size, spread evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    rows: Tiles,
    columns: Tiles,
}

/// One of them: which from above, and which from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    row: usize,
    column: usize,
}

impl Grid {
    /// Tiles of at most `tile` elements a side.
    pub(crate) fn over(height: usize, width: usize, tile: usize) -> Self {
        Self { rows: Tiles::over(height, tile, OVERLAP, 1), columns: Tiles::over(width, tile, OVERLAP, 1) }
    }

    /// Tiles of a part's extents over a whole, for a network that makes the whole up from what it makes of the parts (Bar-Tal et al. 2023,
    /// *MultiDiffusion*). What one invents its neighbours must take up, so half of each is theirs, too. Tiles begin at multiples of `align`.
    pub(crate) fn of(whole: SampleShape, part: SampleShape, align: usize) -> Self {
        let tiles = |whole, part| Tiles::over(whole, part, HALF, align);
        Self { rows: tiles(whole.height, part.height), columns: tiles(whole.width, part.width) }
    }

    /// Height and width of every tile.
    pub(crate) fn extents(&self) -> [usize; 2] {
        [self.rows.extent, self.columns.extent]
    }

    /// Extents of the whole that tiles of a part's extents cover.
    pub(crate) fn whole(&self, part: SampleShape) -> SampleShape {
        let extent = |tiles: &Tiles| tiles.starts.last().map_or(0, |start| start + tiles.extent);
        SampleShape { height: extent(&self.rows), width: extent(&self.columns), ..part }
    }

    /// All tiles, row by row.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        let row = |row| (0..self.columns.starts.len()).map(move |column| Tile { row, column });
        (0..self.rows.starts.len()).flat_map(row)
    }

    /// What a tile covers of an image `[H, W, C]` that has `factor` pixels a side for each element of the grid.
    pub(crate) fn cut(&self, tile: Tile, image: &[f32], shape: SampleShape, factor: usize) -> Vec<f32> {
        let [height, width] = self.extents().map(|extent| extent * factor);
        let (top, left) = (self.rows.starts[tile.row] * factor, self.columns.starts[tile.column] * factor);
        let start = |y: usize| ((top + y) * shape.width + left) * shape.channels;
        (0..height).flat_map(|y| image[start(y)..start(y) + width * shape.channels].iter().copied()).collect()
    }
}

/// An image that tiles are put into one by one.
pub(crate) struct Blend {
    shape: SampleShape,
    sum: Vec<f32>,
    weights: Vec<f32>,
}

impl Blend {
    pub(crate) fn new(shape: SampleShape) -> Self {
        Self { shape, sum: vec![0.0; shape.numel()], weights: vec![0.0; shape.height * shape.width] }
    }

    /// Adds what was made of a tile, with `factor` pixels a side for each element of the grid.
    pub(crate) fn add(&mut self, values: &[f32], grid: &Grid, tile: Tile, factor: usize) {
        let channels = self.shape.channels;
        let (rows, columns) = (&grid.rows, &grid.columns);
        let (top, left) = (rows.starts[tile.row] * factor, columns.starts[tile.column] * factor);
        let [height, width] = grid.extents().map(|extent| extent * factor);
        let across: Vec<f32> = (0..width).map(|at| columns.weight(tile.column, at, factor)).collect();
        for row in 0..height {
            let down = rows.weight(tile.row, row, factor);
            for (column, across) in across.iter().enumerate() {
                let (weight, from) = (down * across, (row * width + column) * channels);
                let pixel = (top + row) * self.shape.width + left + column;
                self.weights[pixel] += weight;
                for channel in 0..channels {
                    self.sum[pixel * channels + channel] += weight * values[from + channel];
                }
            }
        }
    }

    /// The whole.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        for (pixel, weight) in self.sum.chunks_exact_mut(self.shape.channels).zip(&self.weights) {
            pixel.iter_mut().for_each(|value| *value /= weight);
        }
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_and_overlap() {
        for (whole, tile) in [(8, 8), (9, 8), (64, 16), (100, 32), (17, 1), (5, 4), (1000, 64)] {
            let tiles = Tiles::over(whole, tile, OVERLAP, 1);
            assert_eq!((tiles.starts[0], tiles.starts.last().unwrap() + tiles.extent), (0, whole), "{whole} by {tile}");
            for pair in tiles.starts.windows(2) {
                let overlap = (pair[0] + tiles.extent) as f64 - pair[1] as f64;
                assert!(
                    pair[1] > pair[0] && overlap >= (tile as f64 * OVERLAP).floor(),
                    "{whole} by {tile}: {tiles:?}"
                );
            }
        }
    }

    #[test]
    fn what_tiles_agree_on_stays_and_edges_fade() {
        let (grid, factor) = (Grid::over(10, 7, 4), 3);
        let shape = SampleShape { height: 30, width: 21, channels: 2 };
        let whole: Vec<f32> = (0..shape.numel()).map(|i| (i * 31 % 97) as f32 - 40.0).collect();
        let (mut same, mut steps) = (Blend::new(shape), Blend::new(shape));
        for tile in grid.tiles() {
            let part = grid.cut(tile, &whole, shape, factor);
            assert_eq!(part.len(), 12 * 12 * 2);
            same.add(&part, &grid, tile, factor);
            steps.add(&vec![tile.column as f32; part.len()], &grid, tile, factor);
        }
        assert!(same.finish().iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4));
        // From tile 0 to tile 1 in no jump.
        let steps = steps.finish();
        let row: Vec<f32> = steps.chunks_exact(2).take(shape.width).map(|pixel| pixel[0]).collect();
        assert!(row[0] < 1e-6 && row[20] > 0.999_99);
        assert!(row.windows(2).all(|pair| pair[1] >= pair[0] && pair[1] - pair[0] < 0.4), "{row:?}");
    }
}
