#![allow(clippy::unwrap_used, clippy::print_stdout)]
use super::testing::*;
use super::*;
use crate::kernel::*;
use crate::tensor::*;
use std::collections::HashMap;

fn time(name: &str, make: &dyn Fn(&mut Values) -> Vec<ValueId>, flops: f64) {
    let mut values = Values::new();
    let outputs = make(&mut values);
    let stored = fuse(&mut values, &outputs, Fusion::On);
    let scheduled = schedule(&mut values, &stored, &outputs, AttentionAs::One);
    let gpu = gpu();
    let mut buffers = HashMap::new();
    for (v, layout) in &scheduled.layouts {
        let len = layout.len(values.shape(*v)).eval(&Default::default()).unwrap() as u64 * 4;
        let bytes: Vec<u8> = (0..len / 4).flat_map(|i| ((i % 13) as f32 * 0.1 - 0.6).to_le_bytes()).collect();
        buffers.insert(*v, gpu.buffer(&bytes, len));
    }
    let dims = gpu.buffer(&[0; 16], 16);
    let flag = gpu.buffer(&[0; 4], 16);
    let count = scheduled.kernels.iter().map(|k| emit_candidates(&mut values, k, &[]).unwrap().len()).max().unwrap();
    for which in 0..count {
        let shaders: Vec<Shader> = scheduled
            .kernels
            .iter()
            .map(|k| {
                let mut all = emit_candidates(&mut values, k, &[]).unwrap();
                all.swap_remove(which.min(all.len() - 1))
            })
            .collect();
        if std::env::var("SHOW").is_ok() {
            for s in &shaders {
                println!("{}", s.wgsl);
            }
        }
        let t0 = std::time::Instant::now();
        let ready: Vec<Ready> =
            shaders.iter().map(|s| gpu.prepare(s, &buffers, &dims, &flag, &Default::default())).collect();
        gpu.dispatch(&ready);
        gpu.wait();
        let first = t0.elapsed().as_secs_f64() * 1e3;
        let ticks = || {
            let t = std::fs::read_to_string("/proc/self/stat").unwrap();
            let f: Vec<&str> = t.rsplit(')').next().unwrap().split_whitespace().collect();
            (f[11].parse::<u64>().unwrap() + f[12].parse::<u64>().unwrap()) as f64 * 0.01
        };
        let c0 = ticks();
        let mut best = f64::MAX;
        let reps = 12;
        for _ in 0..reps {
            let t = std::time::Instant::now();
            gpu.dispatch(&ready);
            gpu.wait();
            best = best.min(t.elapsed().as_secs_f64());
        }
        let cpu = (ticks() - c0) / reps as f64;
        println!(
            "{name:32} #{which} {} kernels first {first:7.1} ms best {:8.3} ms {:6.1} GF/s cpu {:8.3} ms {:6.1} GF/s/core",
            shaders.len(),
            best * 1e3,
            flops / best / 1e9,
            cpu * 1e3,
            flops / cpu / 1e9
        );
    }
}

fn k(s: &[usize]) -> Shape {
    s.iter().map(|n| Dim::from(*n)).collect()
}

#[test]
fn speed() {
    let zeros = |n: &[usize]| Array::from_f32(n.to_vec(), &vec![0.1; n.iter().product()]).unwrap();
    for (m, kk, n) in [(128, 384, 1536), (128, 1536, 384), (128, 384, 384)] {
        let w = zeros(&[kk, n]);
        time(
            &format!("gemm {m} {kk} {n}"),
            &|vs| super::tests::matmul(vs, &[], &Dim::from(m), kk, n, Some(&w)),
            2.0 * (m * kk * n) as f64,
        );
    }
    for (c, o, hw, ks, s) in
        [(64, 64, 56, 3, 1), (256, 256, 14, 3, 1), (256, 64, 56, 1, 1), (512, 2048, 7, 1, 1), (3, 64, 224, 7, 2)]
    {
        let w = zeros(&[o, c, ks, ks]);
        let cv = super::tests::Conv { c, o, hw, k: ks, stride: s, depthwise: false };
        let out = (hw + 2 * (ks / 2) - ks) / s + 1;
        time(
            &format!("conv {c} {o} {hw} {ks} {s}"),
            &|vs| super::tests::conv(vs, &cv, &w),
            2.0 * (c * o * out * out * ks * ks) as f64,
        );
    }
    for (c, hw, ks, s) in [(144, 56, 3, 1), (672, 14, 5, 1)] {
        let w = zeros(&[c, 1, ks, ks]);
        let cv = super::tests::Conv { c, o: c, hw, k: ks, stride: s, depthwise: true };
        time(
            &format!("depthwise {c} {hw} {ks}"),
            &|vs| super::tests::conv(vs, &cv, &w),
            2.0 * (c * hw * hw * ks * ks) as f64,
        );
    }
    let x = |vs: &mut Values| super::tests::softmax(vs, k(&[1536, 128]));
    time("softmax 1536 128", &x, (1536 * 128 * 4) as f64);
}

#[test]
fn experiment() {
    let Ok(dir) = std::env::var("EXP") else { return };
    let gpu = gpu();
    let (m, kk, n) = (128usize, 384usize, 1536usize);
    let fill = |l: usize| -> Vec<u8> { (0..l).flat_map(|i| ((i % 13) as f32 * 0.1 - 0.6).to_le_bytes()).collect() };
    let b = [gpu.buffer(&fill(m * kk), 0), gpu.buffer(&fill(kk * n), 0), gpu.buffer(&[], (m * n * 4) as u64)];
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wgsl"))
        .collect();
    names.sort();
    for p in names {
        for unchecked in [false, true] {
            let text = std::fs::read_to_string(&p).unwrap();
            let groups: u32 = text[3..text.find('\n').unwrap()].trim().parse().unwrap();
            let desc = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(text.into()) };
            // SAFETY: the shaders stay inside their buffers.
            let module = if unchecked {
                unsafe { gpu.device.create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked()) }
            } else {
                gpu.device.create_shader_module(desc)
            };
            let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
            let entries: Vec<_> = b
                .iter()
                .enumerate()
                .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
                .collect();
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let ready = [Ready { pipeline, group, size: [groups, 1, 1] }];
            gpu.dispatch(&ready);
            gpu.wait();
            let ticks = || {
                let t = std::fs::read_to_string("/proc/self/stat").unwrap();
                let f: Vec<&str> = t.rsplit(')').next().unwrap().split_whitespace().collect();
                (f[11].parse::<u64>().unwrap() + f[12].parse::<u64>().unwrap()) as f64 * 0.01
            };
            let c0 = ticks();
            let mut runs = 0;
            while ticks() - c0 < 0.4 {
                gpu.dispatch(&ready);
                gpu.wait();
                runs += 1;
            }
            let cpu = (ticks() - c0) / runs as f64;
            println!(
                "{:20} unchecked {unchecked}: cpu {:8.3} ms {:6.2} GF/s/core",
                p.file_stem().unwrap().to_string_lossy(),
                cpu * 1e3,
                2.0 * (m * kk * n) as f64 / cpu / 1e9
            );
        }
    }
}
