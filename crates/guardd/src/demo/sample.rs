//! The sample application: what a small team's server has.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FILES: [(&str, &str, u32); 10] = [
    (".env.prod", "DATABASE_URL=postgres://shop:correct-horse@db/shop\nSECRET_KEY=not-a-real-one\n", 0o600),
    (
        "docker-compose.unified.yml",
        "services:\n  backend:\n    build: backend\n    env_file: .env.prod\n  frontend:\n    build: frontend\n",
        0o644,
    ),
    (
        "deployment/nginx.conf.template",
        "server {\n  listen 80;\n  location / { proxy_pass http://backend:8000; }\n}\n",
        0o644,
    ),
    ("backend/Dockerfile", "FROM python:3.12-slim\nCOPY app /app\n", 0o644),
    (
        "backend/app/main.py",
        "from . import orders\n\n\ndef pay(order):\n    return orders.charge(order)\n",
        0o644,
    ),
    ("backend/app/orders.py", "def charge(order):\n    return order.total\n", 0o644),
    ("frontend/src/App.tsx", "export const App = () => <h1>Shop</h1>;\n", 0o644),
    ("frontend/src/index.tsx", "import { App } from './App';\n", 0o644),
    ("scripts/deploy.sh", "#!/bin/sh\nset -e\ndocker compose up -d --wait\n", 0o755),
    ("logs/access.log", "", 0o644),
];

/// Makes the application; how many files it has.
pub(super) fn make(app: &Path) -> io::Result<usize> {
    let mut files = 0;
    for (name, text, mode) in FILES {
        let path = app.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(app))?;
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        files += 1;
    }
    // Dependencies are what a tree is made of by number.
    for package in 0..20 {
        let dir = app.join(format!("frontend/node_modules/package-{package}"));
        std::fs::create_dir_all(&dir)?;
        for file in 0..10 {
            std::fs::write(dir.join(format!("module-{file}.js")), format!("exports.n = {package}{file};\n"))?;
            files += 1;
        }
    }
    std::fs::create_dir_all(app.join("media"))?;
    std::os::unix::fs::symlink("docker-compose.unified.yml", app.join("compose.yml"))?;
    Ok(files + 1)
}

/// Gives the owner write permission on every directory below `dir`, to remove it.
pub(super) fn make_writable(dir: &Path) {
    let Ok(names) = std::fs::read_dir(dir) else { return };
    if let Ok(meta) = std::fs::symlink_metadata(dir) {
        let mode = meta.permissions().mode() | 0o700;
        // What cannot be changed cannot be removed either, and that is told.
        std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).ok();
    }
    for name in names.flatten() {
        if name.file_type().is_ok_and(|t| t.is_dir()) {
            make_writable(&name.path());
        }
    }
}
